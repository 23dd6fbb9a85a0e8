"""The job table: finding and listing jobs, moving one to the front, erasing one.

What accepts a job lies in `insertion`, what moves it in `claim`, `settle` and `upkeep`, what tells
its place in `places`; all are re-exported here, so that callers say `jobs.claim`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    or_,
    select,
    update,
)

from vidmill.domain.job import WIRE, Job, JobState, Phase, WireStatus
from vidmill.store.claim import Owned, Progress, claim, heartbeat
from vidmill.store.counters import Drift, audit, find_drift
from vidmill.store.glance import get
from vidmill.store.insertion import NewJob, insert, insert_many
from vidmill.store.locks import lock_flows
from vidmill.store.models import JOB_COLUMNS, SEARCH_TEXT, attempts, jobs
from vidmill.store.places import (
    LaneDepth,
    QueueSnapshot,
    position,
    queue_depths,
    queue_snapshot,
)
from vidmill.store.rows import to_job
from vidmill.store.settle import (
    Cancelled,
    Delayed,
    Failed,
    Outcome,
    Requeued,
    Settled,
    Succeeded,
    hold,
    request_cancel,
    settle,
)
from vidmill.store.unit import UnitOfWork
from vidmill.store.upkeep import outcome_of, promote, release_dead, sweep

__all__ = [
    "Cancelled",
    "Delayed",
    "Drift",
    "Failed",
    "JobFilter",
    "LaneDepth",
    "NewJob",
    "Outcome",
    "Owned",
    "Progress",
    "QueueSnapshot",
    "Requeued",
    "Settled",
    "Succeeded",
    "audit",
    "claim",
    "erase",
    "find_drift",
    "get",
    "get_by_id",
    "heartbeat",
    "hold",
    "insert",
    "insert_many",
    "outcome_of",
    "page",
    "position",
    "promote",
    "queue_depths",
    "queue_snapshot",
    "release_dead",
    "request_cancel",
    "run_next",
    "settle",
    "sweep",
    "withdraw",
]


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows; instants in Unix seconds, the end exclusive.

    Attributes:
        text: In the prompt or the client reference, in whatever case; NFC.
        metadata: Pairs the request had; no key holds a quote or a backslash.
    """

    status: WireStatus | None = None
    client_reference: str | None = None
    submitted_from: float | None = None
    submitted_before: float | None = None
    text: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


_BY_ID = select(jobs).where(jobs.c.id == bindparam("job"))


def get_by_id(conn: Connection, job_id: int) -> Job | None:
    row = conn.execute(_BY_ID, {"job": job_id}).first()
    return None if row is None else to_job(row)


_MINE = (
    select(jobs)
    .where(
        jobs.c.public_id == bindparam("public"),
        jobs.c.tenant_id == bindparam("tenant"),
        jobs.c.user_id == bindparam("user"),
        jobs.c.state == JobState.QUEUED,
    )
    .with_for_update()
)
_HEAD = (
    select(jobs.c.id, jobs.c.rank)
    .where(
        jobs.c.pool == bindparam("pool"),
        jobs.c.lane == bindparam("lane"),
        jobs.c.tenant_id == bindparam("tenant"),
        jobs.c.user_id == bindparam("user"),
        jobs.c.state == JobState.QUEUED,
    )
    .order_by(jobs.c.rank, jobs.c.id)
    .limit(1)
)


def run_next(uow: UnitOfWork, public_id: str, tenant_id: int, user_id: int) -> Job | None:
    """Put a queued job of the user before all his others; None if he has no such job queued."""
    asked = {"public": public_id, "tenant": tenant_id, "user": user_id}
    row = uow.conn.execute(_MINE, asked).first()
    if row is None:
        return None
    lock_flows(uow, [row])
    flow = {"pool": row.pool, "lane": row.lane, "tenant": tenant_id, "user": user_id}
    head = uow.conn.execute(_HEAD, flow).one()
    if head.id == row.id:
        return to_job(row)
    moved = update(jobs).where(jobs.c.id == row.id).values(rank=head.rank - 1).returning(jobs)
    return to_job(uow.conn.execute(moved).one())


def withdraw(uow: UnitOfWork, job_id: int) -> tuple[str, ...]:
    """Mark a finished job as being erased; return the prefixes of files that are to go with it.

    From here on nobody is answered with its files; they stay if other jobs show them. Delete what
    is returned, then `erase`. Done again, as after a failure half-way, it says the same.
    """
    job = uow.conn.execute(_BY_ID, {"job": job_id}).first()
    if job is None:
        return ()
    owner = job.files_of or job.public_id
    shows = or_(jobs.c.public_id == owner, jobs.c.files_of == owner)
    # In one order, so that of two that go at once the second sees the first.
    held = select(jobs.c.id).where(shows).order_by(jobs.c.id).with_for_update()
    uow.conn.execute(held).all()
    uow.conn.execute(update(jobs).where(jobs.c.id == job_id).values(phase=Phase.ERASING))
    others = select(jobs.c.id).where(shows, jobs.c.id != job_id, jobs.c.phase != Phase.ERASING)
    is_shown = uow.conn.execute(others.limit(1)).first() is not None
    return () if is_shown else (owner,)


def erase(uow: UnitOfWork, job_id: int) -> None:
    """Delete a finished job and all that is known of its runs; a trigger keeps live ones."""
    uow.conn.execute(delete(attempts).where(attempts.c.job_id == job_id))
    uow.conn.execute(delete(jobs).where(jobs.c.id == job_id))


_NO_FILTER = JobFilter()


def page(
    conn: Connection,
    tenant_id: int,
    *,
    limit: int,
    filters: JobFilter = _NO_FILTER,
    after: int | None = None,
    is_oldest_first: bool = False,
) -> list[Job]:
    """Return up to *limit* jobs, newest first unless told; *after* ends the page before."""
    query = _filtered(filters).where(jobs.c.tenant_id == tenant_id)
    if after is not None:
        query = query.where(jobs.c.id > after if is_oldest_first else jobs.c.id < after)
    order = jobs.c.id.asc() if is_oldest_first else jobs.c.id.desc()
    rows = conn.execute(query.order_by(order).limit(limit))
    return [to_job(row) for row in rows]


def _filtered(filters: JobFilter) -> Select[Any]:
    query = select(*JOB_COLUMNS)
    if filters.status is not None:
        query = query.where(_has_status(filters.status))
    if filters.client_reference is not None:
        query = query.where(jobs.c.client_reference == filters.client_reference)
    if filters.submitted_from is not None:
        query = query.where(jobs.c.submitted_at >= filters.submitted_from)
    if filters.submitted_before is not None:
        query = query.where(jobs.c.submitted_at < filters.submitted_before)
    if filters.text is not None:
        query = query.where(SEARCH_TEXT.contains(filters.text.casefold(), autoescape=True))
    for name, value in filters.metadata.items():
        query = query.where(jobs.c.request["metadata", name].as_string() == value)
    return query


def _has_status(status: WireStatus) -> ColumnElement[bool]:
    """Say in SQL what `Job.status` says: a job that ran before is not shown as queued again."""
    states = [state.value for state, shown in WIRE.items() if shown == status]
    has_state = jobs.c.state.in_(states)
    if status is WireStatus.QUEUED:
        return and_(has_state, jobs.c.attempt == 0)
    if status is WireStatus.PROCESSING:
        return or_(has_state, and_(jobs.c.state == JobState.QUEUED, jobs.c.attempt > 0))
    return has_state
