"""Workers that wait instead of drawing: everything about them is real but the clip.

They are forked from a server that has imported all they need: a new one costs milliseconds, so
that a fault may kill one every second and the machine still has time for the work.
"""

import functools
import hashlib
import multiprocessing
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmill.domain.clip import Asset, ClipResult
from vidmill.domain.errors import JobCancelled, TimedOut, VidmillError, WorkerLost
from vidmill.domain.job import Job, Phase
from vidmill.domain.ports import EventBus
from vidmill.settings import Settings
from vidmill.store.workers import WorkerState
from vidmill.telemetry import configure_logging
from vidmill.worker.__main__ import serve
from vidmill.worker.loop import EventLoop
from vidmill.worker.proc import die_with
from vidmill.worker.production import Reports, Rules
from vidmill.worker.runs import Run, Runs

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.replicas", "tests.faults.thin"])


@dataclass(frozen=True, kw_only=True)
class Labour:
    """How long a clip takes, give or take half, and where it is put."""

    work_s: float
    files: Path


class ThinProduction:
    """One clip at a time: wait, write the file, say so. It heeds cancels and lost leases."""

    def __init__(
        self,
        loop: EventLoop,
        _bus: EventBus,
        *,
        rules: Rules,
        reports: Reports,
        labour: Labour,
        **_orders: Any,
    ) -> None:
        self._loop = loop
        self._limit_s = rules.time_limit_s
        self._reports = reports
        self._labour = labour
        self.runs = Runs()
        self.children_pids: set[int] = set()
        self.status = (WorkerState.READY, "")
        self.loras: tuple[str, ...] = ()

    def start(self) -> None:
        self._reports.changed()
        self._reports.room()

    @property
    def has_room(self) -> bool:
        return not len(self.runs)

    def begin(self, job: Job) -> None:
        run = self.runs.begin(job)
        work_s = self._labour.work_s * random.uniform(0.5, 1.5)
        run.timers.append(self._loop.after(work_s, lambda: self._finish(run)))
        run.timers.append(self._loop.after(self._limit_s, lambda: self._end(run, TimedOut("late"))))

    def cancel(self, public_id: str, attempt: int) -> None:
        run = self.runs.find(public_id, attempt)
        if run:
            self._end(run, JobCancelled("cancelled by its owner"))

    def lose(self, run: Run, *, grace_s: float = 0.0) -> None:  # noqa: ARG002  it stops at once
        run.is_lost = True
        self._end(run, WorkerLost("the lease ran out"))

    def close(self) -> None:
        pass

    def _finish(self, run: Run) -> None:
        run.finish_tries = 1
        content = f"{run.prefix} by {os.getpid()}".encode()
        path = self._labour.files / run.prefix / "clip.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        cost = {Phase.DENOISING.value: self._labour.work_s}
        self._end(run, result_of(run.job, f"{run.prefix}/clip.mp4", content, cost))

    def _end(self, run: Run, outcome: ClipResult | VidmillError) -> None:
        self.runs.end(run)
        self._reports.over(run, outcome)
        self._reports.room()


def result_of(job: Job, key: str, content: bytes, timings_s: dict[str, float]) -> ClipResult:
    """Return the result of *job*, whose one file holds *content*."""
    spec = job.spec
    video = Asset(
        key=key,
        content_type="video/mp4",
        size_bytes=len(content),
        md5=hashlib.md5(content).hexdigest(),
        sha256=hashlib.sha256(content).hexdigest(),
        width_px=spec.size.width_px,
        height_px=spec.size.height_px,
    )
    return ClipResult(
        assets={"video": video},
        size=spec.size,
        native=spec.native,
        native_fps=spec.native_fps,
        native_frames=spec.num_frames,
        fps=spec.fps,
        num_frames=spec.num_frames,
        duration_s=spec.duration_s,
        seed=spec.seed or 0,
        timings_s=timings_s,
    )


def start_process(target: Callable[..., object], log_path: Path, *arguments: Any) -> Any:
    """Fork a process that runs *target* and writes its words to *log_path*."""
    process = CONTEXT.Process(target=_run, args=(target, log_path, arguments), daemon=True)
    process.start()
    return process


def run_worker(settings: Settings, name: str, labour: Labour) -> int:
    configure_logging(settings.log_level, settings.log_format)
    make_production: Any = functools.partial(ThinProduction, labour=labour)
    return serve(settings, worker=name, engine="none:None", make_production=make_production)


def _run(target: Callable[..., object], log_path: Path, arguments: tuple[Any, ...]) -> None:
    die_with(os.getppid())
    os.setsid()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = target(*arguments)
    sys.exit(status if isinstance(status, int) else 0)
