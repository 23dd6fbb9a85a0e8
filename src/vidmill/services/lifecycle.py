"""How a run ends: completed, failed or given back. One transaction each, then an event."""

from collections.abc import Callable, Mapping
from typing import Any

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import VidmillError
from vidmill.domain.job import Job, JobState, RetryPolicy, decide
from vidmill.domain.ports import EventBus
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork


def complete(
    db: Database,
    bus: EventBus,
    *,
    job_id: int,
    public_id: str,
    attempt: int,
    worker: str,
    result: ClipResult,
) -> JobState | None:
    """Record the clip of a run; return the state reached, None to a zombie (delete its files)."""
    return _settle(
        db,
        bus,
        fence=_fence(job_id, attempt, worker),
        public_id=public_id,
        choose=lambda _uow: jobs.Succeeded(result=result),
    )


def fail(
    db: Database,
    bus: EventBus,
    *,
    job_id: int,
    public_id: str,
    attempt: int,
    worker: str,
    error: VidmillError,
    policy: RetryPolicy,
    jitter: float,
) -> JobState | None:
    """Record that a run ended with *error*: tried again, failed, or cancelled (`JobCancelled`).

    *jitter*, of the delay, is uniform in 0..1.
    """

    def choose(uow: UnitOfWork) -> jobs.Outcome | None:
        job = jobs.get_by_id(uow.conn, job_id)
        if job is None:
            return None
        decision = decide(
            error, attempt=attempt, max_attempts=job.max_attempts, policy=policy, jitter=jitter
        )
        return jobs.outcome_of(error, decision, now=uow.now)

    fence = _fence(job_id, attempt, worker)
    return _settle(db, bus, fence=fence, public_id=public_id, choose=choose)


def release(
    db: Database, bus: EventBus, *, job_id: int, public_id: str, attempt: int, worker: str
) -> JobState | None:
    """Give the job of a run back to the queue, at once and without counting the run: a drain."""
    return _settle(
        db,
        bus,
        fence=_fence(job_id, attempt, worker),
        public_id=public_id,
        choose=lambda _uow: jobs.Requeued(),
    )


def event_of(job: Job) -> Mapping[str, Any]:
    """Return what the bus carries about *job*."""
    return {
        "attempt": job.attempt,
        "state": job.state.value,
        "phase": job.phase.value,
        "progress": job.progress,
    }


def _fence(job_id: int, attempt: int, worker: str) -> dict[str, Any]:
    return {"job_id": job_id, "attempt": attempt, "worker": worker}


def _settle(
    db: Database,
    bus: EventBus,
    *,
    fence: dict[str, Any],
    public_id: str,
    choose: Callable[[UnitOfWork], jobs.Outcome | None],
) -> JobState | None:
    def work(uow: UnitOfWork) -> JobState | None:
        outcome = choose(uow)
        state = outcome and jobs.settle(uow, **fence, outcome=outcome)
        if not state:
            return None
        job = jobs.get_by_id(uow.conn, fence["job_id"])
        assert job is not None, "it was settled in this very transaction"
        uow.after_commit(lambda: bus.publish(public_id, event_of(job)))
        return state

    return db.write(work)
