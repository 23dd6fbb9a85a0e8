"""What the controller does to the table: lost runs and due retries. Each step is idempotent."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, bindparam, or_, select, text, update

from vidmill.domain.errors import TimedOut, VidmillError, WorkerLost
from vidmill.domain.job import Decision, JobState, Phase, RetryPolicy, decide
from vidmill.store.models import jobs
from vidmill.store.settle import Cancelled, Delayed, Failed, Outcome, Requeued, settle
from vidmill.store.unit import UnitOfWork

BACKSTOP_S = 60.0
"""A run so far over the time limit is ended though its lease is kept: its supervisor is stuck."""

BATCH = 500
"""Rows per call; bounds how long the write lock is held."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A run that ended without its worker, and the state its job went to."""

    job_id: int
    public_id: str
    attempt: int
    pool: str
    state: JobState


def sweep(
    uow: UnitOfWork,
    *,
    policy: RetryPolicy,
    jitter: Callable[[], float],
    time_limit_s: float,
    limit: int = BATCH,
) -> list[Swept]:
    """End the runs whose lease expired or which are far over the time limit."""
    overdue = jobs.c.started_at < uow.now - time_limit_s - BACKSTOP_S
    lost = or_(jobs.c.lease_until < uow.now, overdue)
    swept = []
    for row in _running(uow, lost, limit):
        error = _what_happened(row, now=uow.now, time_limit_s=time_limit_s)
        decision = decide(
            error,
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            policy=policy,
            jitter=jitter(),
        )
        swept += _end(uow, row, outcome_of(error, decision, now=uow.now))
    return swept


def release_dead(uow: UnitOfWork, *, live: Collection[str]) -> list[Swept]:
    """Queue again, at once, every run whose worker is not among *live*; for use at a start.

    The run counts, so that a job which takes the machine down ends after `max_attempts`; but it
    does not wait: that somebody ended the process says nothing against the job, and the restart was
    pause enough.
    """
    error = WorkerLost("The worker's process ended while the clip was being made.")
    swept = []
    for row in _running(uow, jobs.c.worker.not_in(sorted(live)), limit=None):
        is_last = row.attempt >= row.max_attempts
        again = Requeued(is_counted=True, code=error.code, message=str(error))
        swept += _end(uow, row, Failed(code=error.code, message=str(error)) if is_last else again)
    return swept


def outcome_of(error: VidmillError, decision: Decision, *, now: float) -> Outcome:
    """Return how a run ends after *error*, as was decided."""
    outcomes: dict[JobState, Outcome] = {
        JobState.CANCELLED: Cancelled(),
        JobState.FAILED: Failed(code=error.code, message=str(error)),
        JobState.DELAYED: Delayed(
            not_before=now + decision.delay_s, code=error.code, message=str(error)
        ),
    }
    return outcomes[decision.state]


_PROMOTE = (
    update(jobs)
    .where(
        jobs.c.id.in_(
            select(jobs.c.id)
            .where(jobs.c.state == text("'delayed'"), jobs.c.not_before <= bindparam("now"))
            .order_by(jobs.c.not_before)
            .limit(BATCH)
        )
    )
    .values(state=JobState.QUEUED, phase=Phase.WAITING, not_before=None)
    .returning(jobs.c.pool)
)


def promote(uow: UnitOfWork) -> set[str]:
    """Queue the retries that are due; return the pools that got work."""
    return set(uow.conn.execute(_PROMOTE, {"now": uow.now}).scalars())


def _running(uow: UnitOfWork, condition: ColumnElement[bool], limit: int | None) -> Iterable[Any]:
    query = select(jobs).where(jobs.c.state == text("'running'"), condition)
    return uow.conn.execute(query.order_by(jobs.c.id).limit(limit)).all()


def _what_happened(row: Any, *, now: float, time_limit_s: float) -> VidmillError:
    if row.started_at < now - time_limit_s - BACKSTOP_S:
        return TimedOut(f"The clip took longer than {time_limit_s:.0f} s and was given up.")
    return WorkerLost("The worker stopped answering while the clip was being made.")


def _end(uow: UnitOfWork, row: Any, outcome: Outcome) -> list[Swept]:
    if row.is_cancel_requested:
        outcome = Cancelled()
    state = settle(uow, job_id=row.id, attempt=row.attempt, worker=row.worker, outcome=outcome)
    assert state is not None, "the row was read in this very transaction"
    key = {"job_id": row.id, "public_id": row.public_id, "attempt": row.attempt}
    return [Swept(**key, pool=row.pool, state=state)]
