"""What callers see of their jobs: one task, a page of them, and cancelling.

The row is the truth. An event of the bus may only say that the *same* run has come further, so
progress never falls and a zombie's news is not shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from vidmill.domain.errors import (
    TaskNotCancellable,
    TaskNotFound,
    TaskNotQueued,
    VidmillError,
)
from vidmill.domain.ids import canonical_task_id
from vidmill.domain.job import Job, JobState, Phase, WireStatus
from vidmill.domain.ports import EventBus, TicketSource
from vidmill.services.access import Caller
from vidmill.services.erasure import Erasure
from vidmill.services.forecast import Forecast, Outlook
from vidmill.services.lifecycle import stop
from vidmill.store import attempts, glance, jobs
from vidmill.store.attempts import Attempt
from vidmill.store.jobs import JobFilter
from vidmill.store.session import Connection, Database, UnitOfWork

PHASES = tuple(Phase)
SEQ_FINAL = 999_999
"""The `seq` of a task's last event."""

_SEQ_BETWEEN_RUNS: Mapping[JobState, int] = {
    JobState.DELAYED: 900_000,
    JobState.QUEUED: 910_000,
    JobState.REVIEW: 920_000,
}


PriceState = Literal["held", "captured", "released"]

_PRICE_STATES: Mapping[JobState, PriceState] = {
    JobState.SUCCEEDED: "captured",
    JobState.FAILED: "released",
    JobState.CANCELLED: "released",
}
"""What has become of the price in the ledger; elsewhere it is held. Triggers keep this true."""


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """A job as its owner sees it now.

    Attributes:
        phase, progress: Those of the row of `run`, or of newer news about the same run.
        leader: The job whose end this one shares; None unless it is following one.
    """

    job: Job
    phase: Phase
    progress: float
    outlook: Outlook
    leader: Job | None = None

    @property
    def run(self) -> Job:
        """The job that is worked on for this one: itself, or the one it follows."""
        return self.leader or self.job

    @property
    def status(self) -> WireStatus:
        return self.run.status

    @property
    def is_cached(self) -> bool:
        """Whether another task's run makes, or made, its files."""
        return self.job.files_of is not None or self.job.state is JobState.FOLLOWING

    @property
    def price_state(self) -> PriceState:
        return _PRICE_STATES.get(self.job.state, "held")

    @property
    def is_over(self) -> bool:
        return self.job.is_terminal

    @property
    def order_key(self) -> tuple[int, int]:
        """Attempt and `seq`: grows with all that happens to a task."""
        return self.job.attempt, self._seq

    def is_news_after(self, earlier: Self) -> bool:
        """Whether the task stands otherwise than in *earlier*.

        One that followed a job that was then cancelled is queued again: news, though not later.
        """
        return self.order_key > earlier.order_key or self.status != earlier.status

    @property
    def _seq(self) -> int:
        if self.is_over:
            return SEQ_FINAL
        if self.run.state is JobState.RUNNING:
            return PHASES.index(self.phase) * 10_001 + int(self.progress * 10_000)
        return _SEQ_BETWEEN_RUNS[self.run.state] if self.run.attempt else 0


@dataclass(frozen=True, kw_only=True)
class Page:
    """Part of the list. `after` leads to the next page; None at the end."""

    tasks: list[TaskView]
    after: int | None


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """The read models, cancelling, moving and erasing."""

    db: Database
    bus: EventBus
    tickets: TicketSource
    erasure: Erasure
    forecast: Forecast

    def get(self, task_id: str, caller: Caller) -> TaskView:
        """Return the caller's task. Here and below, a dialect's form of its id will do.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
        """
        task_id = _known_form(task_id)
        job = self.db.look(lambda conn: glance.get(conn, task_id, caller.tenant_id))
        if job is None:
            raise _not_found(task_id)
        return self._view_led(job)

    def get_many(self, asked: Sequence[tuple[str, Caller]]) -> list[TaskView | Exception]:
        """Return what `get` returns, or raises, for each of *asked*, by one statement."""
        named = {name: task_id for name, _ in asked if (task_id := canonical_task_id(name))}
        known = list(named.values())
        found = self.db.look(lambda conn: glance.get_many(conn, known)) if known else {}

        def one(task_id: str, caller: Caller) -> TaskView | Exception:
            job = found.get(named.get(task_id, ""))
            if job is None or job.tenant_id != caller.tenant_id:
                return _not_found(task_id)
            try:
                return self._view_led(job)
            except VidmillError as error:
                return error

        return [one(task_id, caller) for task_id, caller in asked]

    def _view_led(self, job: Job) -> TaskView:
        """Return how *job* stands; one that follows another may have ended with it meanwhile."""
        if job.state is not JobState.FOLLOWING:
            return self._view(job, None)
        found = self.db.read(lambda conn: _with_leader(conn, job.public_id, job.tenant_id))
        if found is None:
            raise _not_found(job.public_id)
        return self._view(*found)

    def view(self, job: Job) -> TaskView:
        """Return how *job*, as just read, stands."""
        if job.state is not JobState.FOLLOWING:
            return self._view(job, None)
        leader = self.db.read(lambda conn: _leader_of(conn, job))
        return self._view(job, leader)

    def refresh(self, view: TaskView) -> TaskView:
        """Return *view* with the newest news of the same run, without reading its row again."""
        return self._view(view.job, view.leader)

    def _view(self, job: Job, leader: Job | None) -> TaskView:
        run = leader or job
        phase, progress = merge(run, self.bus.latest(run.public_id))
        outlook = self.forecast.outlook(run, progress)
        return TaskView(job=job, phase=phase, progress=progress, outlook=outlook, leader=leader)

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
        task_id = _known_form(task_id)
        job = self.db.write(lambda uow: self.stop(uow, task_id, caller))
        if job is None:
            raise _not_found(task_id)
        if job.state not in (JobState.RUNNING, JobState.CANCELLED):
            raise TaskNotCancellable(
                f"task {task_id} is {job.status} already; there is nothing to cancel"
            )
        return self.view(job)

    def stop(self, uow: UnitOfWork, task_id: str, caller: Caller) -> Job | None:
        """Do what `cancel` does, in the transaction of something else, if the task is not over."""
        return stop(uow, task_id, caller.tenant_id, bus=self.bus, tickets=self.tickets)

    def run_next(self, task_id: str, caller: Caller) -> TaskView:
        """Put a queued task of the user before all others of the same user.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
            TaskNotQueued: It does not wait for a worker.
        """
        task_id = _known_form(task_id)
        moved = self.db.write(
            lambda uow: jobs.run_next(uow, task_id, caller.tenant_id, caller.user_id)
        )
        if moved is None:
            view = self.get(task_id, caller)
            raise TaskNotQueued(_why_not_next(view, caller))
        return self.view(moved)

    def erase(self, task_id: str, caller: Caller) -> bool:
        """Delete a task for good, whatever it is doing; from now on nobody finds it.

        Returns:
            Whether row and files are gone; otherwise they go as soon as its run has stopped.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
        """
        task_id = _known_form(task_id)
        job = self.db.write(lambda uow: self._hide(uow, task_id, caller))
        if job is None:
            raise _not_found(task_id)
        return job.is_terminal and self.erasure.erase(job.id)

    def _hide(self, uow: UnitOfWork, task_id: str, caller: Caller) -> Job | None:
        job = self.stop(uow, task_id, caller)
        if job is not None:
            jobs.hide(uow, job.id)
        return job


def _with_leader(conn: Connection, task_id: str, tenant_id: int) -> tuple[Job, Job | None] | None:
    """Return the job, and the one it follows, if any."""
    job = glance.get(conn, task_id, tenant_id)
    if job is None:
        return None
    if job.state is not JobState.FOLLOWING:
        return job, None
    leader = _leader_of(conn, job)
    if leader is not None:
        return job, leader
    again = glance.get(conn, task_id, tenant_id)  # the leader ended between two reads
    return None if again is None else (again, None)


def _leader_of(conn: Connection, job: Job) -> Job | None:
    leader = None if job.leader_id is None else jobs.get_by_id(conn, job.leader_id)
    return None if leader is None or leader.is_terminal else leader


def merge(job: Job, event: Mapping[str, Any] | None) -> tuple[Phase, float]:
    """Return phase and progress of *job*, *event* being the newest news of it, if any."""
    if event is None or job.state is not JobState.RUNNING or event["attempt"] != job.attempt:
        return job.phase, job.progress
    phase = max(job.phase, Phase(event["phase"]), key=PHASES.index)
    return phase, max(job.progress, float(event["progress"]))


def _why_not_next(view: TaskView, caller: Caller) -> str:
    task_id = view.job.public_id
    if view.job.user_id != caller.user_id:
        return f"task {task_id} is another user's; users take turns, each with his own tasks"
    if view.leader is not None:
        return f"task {task_id} shares the run of an identical one; there is nothing to move"
    return f"task {task_id} is {view.status} and waits for no worker; there is nothing to move"


def _known_form(task_id: str) -> str:
    """Return the id in the form the database knows.

    Raises:
        TaskNotFound: Nothing is ever called so.
    """
    known = canonical_task_id(task_id)
    if known is None:
        raise _not_found(task_id)
    return known


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(
        f"there is no task {task_id[:60]!r} of yours; the list shows those there are"
    )
