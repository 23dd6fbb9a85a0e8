"""One run of a job as its supervisor sees it, and all of them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vidmill.domain.errors import VidmillError
from vidmill.domain.job import Job, JobState, Phase, overall_progress
from vidmill.worker.loop import Timer

FINISH_TRIES = 2
"""A finish child may die once on a clip: the frames are still here, and cost GPU minutes."""


class Stage(StrEnum):
    RENDERING = "rendering"
    WAITING = "waiting"  # frames are ready, the finish child is not
    FINISHING = "finishing"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Rendered frames on their way to the finish child. The descriptor is closed with the run."""

    fd: int
    shape: list[int]
    timings_s: Mapping[str, float]
    identity: Mapping[str, str]


@dataclass(eq=False, kw_only=True)
class Run:
    """One attempt at one job, in one worker.

    Attributes:
        number: Counts within this supervisor; what children know it by.
        verdict: Why it was asked to stop; decides what becomes of the job once it has.
        is_lost: The lease is gone, so the job is somebody else's: finish quietly, write nothing.
        told: The phase that watchers heard of last.
    """

    number: int
    job: Job
    stage: Stage = Stage.RENDERING
    phase: Phase = Phase.STARTING
    progress: float = 0.0
    verdict: VidmillError | None = None
    is_lost: bool = False
    clip: Clip | None = None
    finish_tries: int = 0
    timers: list[Timer] = field(default_factory=list)
    news: Timer | None = None
    is_news_due: bool = False
    told: Phase | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.job.id, self.job.attempt

    @property
    def prefix(self) -> str:
        """Where its files go: no other attempt's."""
        return f"{self.job.public_id}/{self.job.attempt}"

    def advance(self, phase: Phase, done: int, total: int) -> None:
        """Note progress; it never falls."""
        progress = overall_progress(phase, done, total)
        if progress >= self.progress:
            self.phase, self.progress = phase, progress

    def event(self) -> dict[str, Any]:
        return {
            "attempt": self.job.attempt,
            "state": JobState.RUNNING,
            "phase": self.phase,
            "progress": self.progress,
        }

    def release(self) -> None:
        """Stop its timers and let go of its frames."""
        for timer in [*self.timers, *([self.news] if self.news else [])]:
            timer.cancel()
        if self.clip:
            os.close(self.clip.fd)
            self.clip = None


class Runs:
    """Every run that is not over, in the order of their claims."""

    def __init__(self) -> None:
        self._by_number: dict[int, Run] = {}
        self._count = 0

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._by_number.values()))

    def __len__(self) -> int:
        return len(self._by_number)

    def begin(self, job: Job) -> Run:
        self._count += 1
        run = self._by_number[self._count] = Run(number=self._count, job=job)
        return run

    def get(self, number: int) -> Run | None:
        return self._by_number.get(number)

    def find(self, public_id: str, attempt: int) -> Run | None:
        return next(
            (r for r in self if (r.job.public_id, r.job.attempt) == (public_id, attempt)), None
        )

    def at(self, stage: Stage) -> Run | None:
        """Return the oldest run at *stage*."""
        return next((run for run in self if run.stage is stage), None)

    @property
    def backlog(self) -> int:
        """Clips that are rendered and not yet stored."""
        return sum(run.stage is not Stage.RENDERING for run in self)

    def end(self, run: Run) -> None:
        del self._by_number[run.number]
        run.release()
