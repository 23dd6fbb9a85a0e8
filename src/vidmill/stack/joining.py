"""Joins storyboards in a child process, and hears how it is getting on."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmill.domain.errors import WORK_ERRORS, InternalError, JobCancelled, RenderCrashed, TimedOut
from vidmill.domain.storyboard import JoinedClip
from vidmill.services.joining import Joiner, Keep
from vidmill.settings import Settings
from vidmill.wiring import App

KEEP_EVERY_S = 1.0
"""How often the lease is renewed, and with it whether anybody still wants the result."""

LINE_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class JoinProcess:
    """Runs `vidmill.worker.join_child`, which ends when this thread does, whatever ends it."""

    settings: Settings

    def __call__(self, order: Mapping[str, Any], keep: Keep) -> JoinedClip:
        """Join; see `services.joining.Join`."""
        scratch = self._scratch(order["prefix"])
        command = [sys.executable, "-m", "vidmill.worker.join_child", str(os.getpid())]
        child = subprocess.Popen(  # noqa: S603  our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with child.stdin as stdin:
                stdin.write(json.dumps({**order, **self._surroundings(scratch)}).encode())
            return self._heard(child.stdout.fileno(), keep)
        finally:
            child.kill()
            child.stdout.close()
            child.wait()
            shutil.rmtree(scratch, ignore_errors=True)

    def _scratch(self, prefix: str) -> Path:
        """Return a folder for this attempt alone; what dead ones left is deleted.

        Those of the same storyboard are dead, and those that began before any may still run.
        """
        folder = self.settings.data_dir.absolute() / "joining"
        began_s = time.time() - self.settings.time_limit_s - KEEP_EVERY_S
        for left in folder.glob("*"):
            is_same = left.name.startswith(f"{prefix.partition('/')[0]}-")
            with suppress(FileNotFoundError):  # another process tidies too
                if is_same or left.stat().st_mtime < began_s:
                    shutil.rmtree(left, ignore_errors=True)
        return folder / prefix.replace("/", "-")

    def _surroundings(self, scratch: Path) -> dict[str, Any]:
        settings = self.settings
        return {
            "storage_url": settings.effective_storage_url,
            "scratch": str(scratch),
            "encoding": {"preset": settings.encoder_preset, "crf": settings.encoder_crf},
            "log_level": settings.log_level,
            "log_format": settings.log_format,
        }

    def _heard(self, pipe: int, keep: Keep) -> JoinedClip:
        progress, began = 0.0, time.monotonic()
        kept_at = began
        for said in _lines(pipe):
            now = time.monotonic()
            if now - began > self.settings.time_limit_s:
                raise TimedOut(f"joining took longer than {self.settings.time_limit_s:g} s")
            if "stored" in said:
                return JoinedClip.from_json(said["stored"])
            if "failed" in said:
                raise WORK_ERRORS.get(said["failed"], InternalError)(said["message"])
            progress = said.get("progress", progress)
            if now - kept_at >= KEEP_EVERY_S:
                kept_at = now
                if not keep(progress):
                    raise JobCancelled("nobody wants it any more")
        raise RenderCrashed("the process that joins the shots died")


def _lines(pipe: int) -> Iterator[Mapping[str, Any]]:
    """Yield what is said until the other side hangs up; nothing ({}) while it is silent."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], KEEP_EVERY_S)[0]:
            yield {}
            continue
        piece = os.read(pipe, LINE_BYTES)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)


def new_joiner(app: App) -> Joiner:
    """Return who joins storyboards in this process."""
    join = JoinProcess(settings=app.settings)
    return Joiner(db=app.db, blobs=app.blobs, join=join, tally=app.joins)
