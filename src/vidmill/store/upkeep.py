"""What the controller does to the table: lost runs and due retries. Each step is idempotent.

Rows that another transaction holds are left for the next time: whoever holds them is moving them.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, text, update

from vidmill.domain.errors import TimedOut, VidmillError, WorkerLost
from vidmill.domain.job import Decision, JobState, Phase, RetryPolicy, decide
from vidmill.store.locks import lock_flows
from vidmill.store.models import jobs
from vidmill.store.settle import Cancelled, Delayed, Failed, Outcome, Requeued, Settled, settle
from vidmill.store.unit import UnitOfWork

BACKSTOP_S = 60.0
"""A run so far over the time limit is ended though its lease is kept: its supervisor is stuck."""

BATCH = 500
"""Rows per call; bounds how long the write lock is held."""


def sweep(
    uow: UnitOfWork,
    *,
    policy: RetryPolicy,
    jitter: Callable[[], float],
    time_limit_s: float,
    limit: int = BATCH,
) -> list[Settled]:
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
        swept.append(_end(uow, row, outcome_of(error, decision, now=uow.now)))
    return swept


def release_dead(
    uow: UnitOfWork, *, live: Collection[str] = (), dead: Collection[str] | None = None
) -> list[Settled]:
    """Queue again, at once, the runs of *dead* workers; None = of all that are not *live*.

    For use at a start. On a database that others use too, name the dead: who is unknown here may
    well work elsewhere.

    The run counts, so that a job which takes the machine down ends after `max_attempts`; but it
    does not wait: that somebody ended the process says nothing against the job, and the restart was
    pause enough.
    """
    error = WorkerLost("The worker's process ended while the clip was being made.")
    swept = []
    mine = jobs.c.worker.not_in(sorted(live))
    lost = mine if dead is None else and_(mine, jobs.c.worker.in_(sorted(dead)))
    for row in _running(uow, lost, limit=None):
        is_last = row.attempt >= row.max_attempts
        again = Requeued(is_counted=True, code=error.code, message=str(error))
        last = Failed(code=error.code, message=str(error))
        swept.append(_end(uow, row, last if is_last else again))
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


_DUE = text("state = 'delayed'")


def promote(uow: UnitOfWork) -> set[str]:
    """Queue the retries that are due; return the pools that got work."""
    due = select(jobs).where(_DUE, jobs.c.not_before <= uow.now).order_by(jobs.c.not_before)
    rows = uow.conn.execute(due.limit(BATCH).with_for_update(skip_locked=True)).all()
    lock_flows(uow, rows)
    queued = update(jobs).where(jobs.c.id.in_([row.id for row in rows]), _DUE)
    queued = queued.values(state=JobState.QUEUED, phase=Phase.WAITING, not_before=None)
    if rows:
        uow.conn.execute(queued)
    return {row.pool for row in rows}


def _running(uow: UnitOfWork, condition: ColumnElement[bool], limit: int | None) -> Sequence[Any]:
    """Return such runs, locked, and with them all that ending them will touch."""
    query = select(jobs).where(jobs.c.state == text("'running'"), condition)
    held = query.order_by(jobs.c.id).limit(limit).with_for_update(skip_locked=True)
    rows = uow.conn.execute(held).all()
    lock_flows(uow, rows)
    return rows


def _what_happened(row: Any, *, now: float, time_limit_s: float) -> VidmillError:
    if row.started_at < now - time_limit_s - BACKSTOP_S:
        return TimedOut(f"The clip took longer than {time_limit_s:.0f} s and was given up.")
    return WorkerLost("The worker stopped answering while the clip was being made.")


def _end(uow: UnitOfWork, row: Any, outcome: Outcome) -> Settled:
    if row.is_cancel_requested:
        outcome = Cancelled()
    settled = settle(uow, job_id=row.id, attempt=row.attempt, worker=row.worker, outcome=outcome)
    assert settled is not None, "the row was read, and is held, in this very transaction"
    return settled
