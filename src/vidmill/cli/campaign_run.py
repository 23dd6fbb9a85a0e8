"""One run over a campaign: hand in what is missing, follow it, fetch it, keep the manifest true."""

import contextlib
import time
from pathlib import Path

from rich.console import Console

from vidmill.cli.campaign import Row
from vidmill.cli.manifest import Entry, Manifest
from vidmill.cli.progress import Bars
from vidmill.client import (
    ClipRequest,
    NotFound,
    Outcome,
    Task,
    Video,
    Vidmill,
    VidmillError,
)

WRITE_EVERY_S = 1.0
"""How much news a kill -9 may cost the manifest; writing it at each event would be quadratic."""


class CampaignRun:
    """Makes the rows that the manifest does not have yet."""

    def __init__(
        self, client: Vidmill, rows: list[Row], manifest: Manifest, *, has_posters: bool
    ) -> None:
        self._client = client
        self._rows = rows
        self._manifest = manifest
        self._has_posters = has_posters
        self._written_at = 0.0

    def run(self, console: Console, *, concurrency: int) -> None:
        """Return when every row is made or has failed; the manifest is written last of all.

        Raises:
            KeyboardInterrupt: The manifest is written and names every task handed in.
        """
        entries = self._manifest.entries
        todo = [index for index, entry in enumerate(entries) if not entry.is_done]
        try:
            clips = [self._clip(index) for index in todo]
            steps = self._client.capabilities().model.steps
            with Bars(console, [row.clip.prompt for row in self._rows], steps=steps) as bars:
                for index in set(range(len(entries))) - set(todo):
                    bars.end(index, "kept", progress=1.0)
                outcomes = self._client.generate_many(
                    clips,
                    concurrency=concurrency,
                    on_progress=lambda index, task: self._follow(bars, todo[index], task),
                )
                with contextlib.closing(outcomes):
                    for outcome in outcomes:
                        self._settle(bars, todo[outcome.index], outcome)
        finally:
            self._manifest.write()

    def leave(self, *, is_cancelling: bool) -> int:
        """Return how many tasks go on; or minus how many were cancelled."""
        live = [e for e in self._manifest.entries if e.status in {"queued", "processing"}]
        if not is_cancelling:
            return len(live)
        for entry in live:
            with contextlib.suppress(VidmillError):
                entry.follow(self._client.cancel(str(entry.task_id)))
        self._manifest.write()
        return -len(live)

    def _clip(self, index: int) -> ClipRequest | Task:
        """Return the task an earlier run handed in, if the server still has it, or the request."""
        task_id = self._manifest.entries[index].task_id
        if task_id:
            with contextlib.suppress(NotFound):
                task = self._client.task(task_id)
                if task.status not in {"failed", "cancelled"}:
                    return task
        return self._rows[index].clip

    def _follow(self, bars: Bars, index: int, task: Task) -> None:
        self._manifest.entries[index].follow(task)
        bars.show(index, task)
        if time.monotonic() - self._written_at > WRITE_EVERY_S:
            self._manifest.write()
            self._written_at = time.monotonic()

    def _settle(self, bars: Bars, index: int, outcome: Outcome[Video]) -> None:
        entry = self._manifest.entries[index]
        if outcome.video is None:
            error = outcome.error or VidmillError("no answer")
            entry.fail(error, outcome.task)
            bars.end(index, f"{entry.status}: {error}")
            return
        try:
            self._fetch(entry, outcome.video)
        except (VidmillError, OSError) as error:
            entry.fail(error, outcome.video.task)
            bars.end(index, f"not saved: {error}")
        else:
            bars.end(index, f"saved {entry.file}", progress=1.0)

    def _fetch(self, entry: Entry, video: Video) -> None:
        folder: Path = self._manifest.folder
        file, poster = folder / f"{entry.name}.mp4", None
        video.save(file)
        if self._has_posters and "poster" in video.result.files:
            poster = video.save_poster(folder / f"{entry.name}.jpg")
        entry.complete(video.task, video.result, file=file, poster=poster)
