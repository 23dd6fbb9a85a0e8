"""What callers see of their jobs: one task, a page of them, and cancelling.

The row is the truth. An event of the bus may only say that the *same* run has come further, so
progress never falls and a zombie's news is not shown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidmill.domain.errors import (
    ServiceUnavailable,
    StorageFailed,
    TaskNotCancellable,
    TaskNotFound,
    TaskStillLive,
)
from vidmill.domain.job import Job, JobState, Phase, WireStatus
from vidmill.domain.ports import BlobStore, EventBus
from vidmill.services.access import Caller
from vidmill.services.forecast import Forecast, Outlook
from vidmill.store import attempts, glance, jobs
from vidmill.store.attempts import Attempt
from vidmill.store.jobs import JobFilter
from vidmill.store.session import Database

PHASES = tuple(Phase)
TASK_ID = re.compile("t2v_[0-9a-f]{32}")
"""All that the database is asked about; see `domain.ids`."""

SEQ_FINAL = 999_999
"""The `seq` of a task's last event."""

_SEQ_BETWEEN_RUNS: Mapping[JobState, int] = {
    JobState.DELAYED: 900_000,
    JobState.QUEUED: 910_000,
    JobState.REVIEW: 920_000,
}


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """A job as its owner sees it now.

    Attributes:
        phase, progress: Those of the row, or of newer news about the same run.
    """

    job: Job
    phase: Phase
    progress: float
    outlook: Outlook

    @property
    def status(self) -> WireStatus:
        return self.job.status

    @property
    def is_over(self) -> bool:
        return self.job.is_terminal

    @property
    def order_key(self) -> tuple[int, int]:
        """Attempt and `seq`: grows with all that happens to a task."""
        return self.job.attempt, self._seq

    @property
    def _seq(self) -> int:
        if self.is_over:
            return SEQ_FINAL
        if self.job.state is JobState.RUNNING:
            return PHASES.index(self.phase) * 10_001 + int(self.progress * 10_000)
        return _SEQ_BETWEEN_RUNS[self.job.state] if self.job.attempt else 0


@dataclass(frozen=True, kw_only=True)
class Page:
    """Part of the list. `after` leads to the next page; None at the end."""

    tasks: list[TaskView]
    after: int | None


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """The read models, cancelling and erasing."""

    db: Database
    bus: EventBus
    blobs: BlobStore
    forecast: Forecast

    def get(self, task_id: str, caller: Caller) -> TaskView:
        """Return the caller's task.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
        """
        if not TASK_ID.fullmatch(task_id):
            raise _not_found(task_id)
        job = self.db.read(lambda conn: glance.get(conn, task_id, caller.tenant_id))
        if job is None:
            raise _not_found(task_id)
        return self.view(job)

    def view(self, job: Job) -> TaskView:
        phase, progress = merge(job, self.bus.latest(job.public_id))
        outlook = self.forecast.outlook(job, progress)
        return TaskView(job=job, phase=phase, progress=progress, outlook=outlook)

    def runs(self, view: TaskView) -> list[Attempt]:
        """Return the runs of a task, oldest first."""
        return self.db.read(lambda conn: attempts.of_job(conn, view.job.id))

    def page(
        self,
        caller: Caller,
        *,
        filters: JobFilter,
        after: int | None,
        limit: int,
        is_oldest_first: bool = False,
    ) -> Page:
        """Return up to *limit* tasks that follow the one whose job id is *after*."""
        found = self.db.read(
            lambda conn: jobs.page(
                conn,
                caller.tenant_id,
                filters=filters,
                after=after,
                limit=limit + 1,
                is_oldest_first=is_oldest_first,
            )
        )
        shown = found[:limit]
        return Page(
            tasks=[self.view(job) for job in shown],
            after=shown[-1].id if len(found) > limit else None,
        )

    def cancel(self, task_id: str, caller: Caller) -> TaskView:
        """Cancel a waiting task at once; ask the worker of a running one to stop.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
            TaskNotCancellable: It completed or failed first.
        """
        if not TASK_ID.fullmatch(task_id):
            raise _not_found(task_id)
        job = self.db.write(lambda uow: jobs.request_cancel(uow, task_id, caller.tenant_id))
        if job is None:
            raise _not_found(task_id)
        if job.state is JobState.RUNNING:
            self.bus.cancel(job.public_id, job.attempt)
        elif job.state is JobState.CANCELLED:
            self._tell(job)
        else:
            raise TaskNotCancellable(
                f"task {task_id} is {job.status} already; there is nothing to cancel"
            )
        return self.view(job)

    def erase(self, task_id: str, caller: Caller) -> None:
        """Delete a task and its files for good; one that waits is cancelled first.

        Files go first: after a failure half-way the task is still there to be erased again.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
            TaskStillLive: It is running.
            ServiceUnavailable: The files could not be deleted now.
        """
        job = self.get(task_id, caller).job
        if not job.is_terminal and job.state is not JobState.RUNNING:
            job = self.cancel(task_id, caller).job
        if not job.is_terminal:
            raise TaskStillLive(f"task {task_id} is running; cancel it first, then delete it")
        try:
            self.blobs.delete_prefix(task_id)
        except StorageFailed as error:
            raise ServiceUnavailable(f"the files of {task_id} stay for now: {error}") from error
        self.db.write(lambda uow: jobs.erase(uow, job.id))

    def _tell(self, job: Job) -> None:
        event = {
            "attempt": job.attempt,
            "state": job.state,
            "phase": job.phase,
            "progress": job.progress,
        }
        self.bus.publish(job.public_id, event)


def merge(job: Job, event: Mapping[str, Any] | None) -> tuple[Phase, float]:
    """Return phase and progress of *job*, *event* being the newest news of it, if any."""
    if event is None or job.state is not JobState.RUNNING or event["attempt"] != job.attempt:
        return job.phase, job.progress
    phase = max(job.phase, Phase(event["phase"]), key=PHASES.index)
    return phase, max(job.progress, float(event["progress"]))


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(
        f"there is no task {task_id[:60]!r} of yours; the list shows those there are"
    )
