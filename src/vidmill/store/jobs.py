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
    or_,
    select,
    update,
)

from vidmill.domain.ids import task_id
from vidmill.domain.job import WIRE, Job, JobState, Phase, WireStatus
from vidmill.store.claim import Owned, Progress, claim, heartbeat
from vidmill.store.counters import Drift, audit, find_drift
from vidmill.store.erasure import erase, hidden, hide, withdraw
from vidmill.store.glance import get
from vidmill.store.insertion import NewJob, insert, insert_many, num_waiting
from vidmill.store.locks import lock_flows
from vidmill.store.models import IS_SHOWN, JOB_COLUMNS, SEARCH_TEXT, jobs
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
    lock,
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
    "filtered",
    "find_drift",
    "get",
    "get_by_id",
    "heartbeat",
    "hidden",
    "hide",
    "hold",
    "insert",
    "insert_many",
    "lock",
    "num_waiting",
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
        IS_SHOWN,
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
    query = filtered(filters, tenant_id)
    if after is not None:
        query = query.where(jobs.c.id > after if is_oldest_first else jobs.c.id < after)
    order = jobs.c.id.asc() if is_oldest_first else jobs.c.id.desc()
    rows = conn.execute(query.order_by(order).limit(limit))
    return [to_job(row) for row in rows]


def filtered(filters: JobFilter, tenant_id: int) -> Select[Any]:
    """Return the query for the tenant's jobs that *filters* lets through, in no order."""
    query = select(*JOB_COLUMNS).where(jobs.c.tenant_id == tenant_id, IS_SHOWN)
    if filters.status is not None:
        query = query.where(_has_status(filters.status))
    if filters.client_reference is not None:
        query = query.where(jobs.c.client_reference == filters.client_reference)
    # Public ids begin with the same instant, and theirs is the index that ends with the window.
    if filters.submitted_from is not None:
        query = query.where(
            jobs.c.submitted_at >= filters.submitted_from,
            jobs.c.public_id >= _first_id(int(filters.submitted_from * 1000)),
        )
    if filters.submitted_before is not None:
        query = query.where(
            jobs.c.submitted_at < filters.submitted_before,
            jobs.c.public_id < _first_id(int(filters.submitted_before * 1000) + 1),
        )
    if filters.text is not None:
        query = query.where(SEARCH_TEXT.contains(filters.text.casefold(), autoescape=True))
    for name, value in filters.metadata.items():
        query = query.where(jobs.c.request["metadata", name].as_string() == value)
    return query


def _first_id(unix_ms: int) -> str:
    """Return the least public id of a job submitted in that millisecond."""
    return task_id(max(0, unix_ms), 0)


def _has_status(status: WireStatus) -> ColumnElement[bool]:
    """Say in SQL what `Job.status` says: a job that ran before is not shown as queued again."""
    states = [state.value for state, shown in WIRE.items() if shown == status]
    state, phase, attempt = jobs.c.state, jobs.c.phase, jobs.c.attempt
    # A list of states first, always: it is what `jobs_list_state` is searched by.
    if status is WireStatus.QUEUED:
        is_paused = or_(state != JobState.DELAYED, phase == Phase.PAUSED)
        return and_(state.in_([*states, JobState.DELAYED]), is_paused, attempt == 0)
    if status is WireStatus.PROCESSING:
        has_run = or_(attempt > 0, and_(state != JobState.QUEUED, phase != Phase.PAUSED))
        return and_(state.in_([*states, JobState.QUEUED]), has_run)
    return state.in_(states)
