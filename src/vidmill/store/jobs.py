"""The job table: putting jobs in, finding and listing them.

What moves a job lies in `claim`, `settle` and `upkeep`, what tells its place in `places`; all are
re-exported here, so that callers say `jobs.claim`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, or_, select
from sqlalchemy import insert as insert_into

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import QueueFull
from vidmill.domain.job import MAX_ATTEMPTS, WIRE, Job, JobState, Lane, WireStatus
from vidmill.store.claim import Owned, Progress, claim, heartbeat
from vidmill.store.counters import Drift, audit, find_drift
from vidmill.store.direct import Direct
from vidmill.store.glance import get
from vidmill.store.models import JOB_COLUMNS, SEARCH_TEXT, attempts, jobs, tenants
from vidmill.store.places import (
    LaneDepth,
    QueueSnapshot,
    expected_cost_s,
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
    Succeeded,
    request_cancel,
    settle,
)
from vidmill.store.unit import UnitOfWork
from vidmill.store.upkeep import Swept, outcome_of, promote, release_dead, sweep

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
    "Succeeded",
    "Swept",
    "audit",
    "claim",
    "erase",
    "expected_cost_s",
    "find_drift",
    "get",
    "get_by_id",
    "heartbeat",
    "insert",
    "outcome_of",
    "page",
    "position",
    "promote",
    "queue_depths",
    "queue_snapshot",
    "release_dead",
    "request_cancel",
    "settle",
    "sweep",
]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job about to be accepted; with *not_before* in the future it begins delayed."""

    public_id: str
    tenant_id: int
    pool: str
    spec: ClipSpec
    request: Mapping[str, Any]
    est_cost_s: float
    lane: Lane = Lane.STANDARD
    max_attempts: int = MAX_ATTEMPTS
    not_before: float | None = None
    client_reference: str | None = None
    parent: str | None = None


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


_TENANT = Direct(
    select(tenants.c.queued, tenants.c.cap_queued).where(tenants.c.id == bindparam("tenant"))
)
_INSERT = Direct(
    insert_into(jobs).returning(jobs.c.id),
    columns=[*NewJob.__dataclass_fields__, "state", "submitted_at", "attempt", "search_text"],
)
_BY_ID = select(jobs).where(jobs.c.id == bindparam("job"))


def insert(uow: UnitOfWork, new: NewJob) -> Job:
    """Accept *new*.

    Raises:
        QueueFull: The tenant has as many queued jobs as he may.
    """
    tenant = _TENANT.first(uow.conn, {"tenant": new.tenant_id})
    assert tenant is not None, "whoever holds a key has a tenant"
    queued, cap_queued = tenant
    if queued >= cap_queued:
        raise QueueFull(
            f"{queued} tasks are queued, and {cap_queued} is the limit;"
            " try again when some have finished"
        )
    is_delayed = new.not_before is not None and new.not_before > uow.now
    state = JobState.DELAYED if is_delayed else JobState.QUEUED
    values = {**vars(new), "state": state, "submitted_at": uow.now, "attempt": 0}
    texts = {"spec": json.dumps(new.spec.to_json()), "request": json.dumps(dict(new.request))}
    row = _INSERT.first(uow.conn, {**values, **texts, "search_text": _search_text(new)})
    assert row is not None  # RETURNING
    return Job(id=row[0], **values)


def get_by_id(conn: Connection, job_id: int) -> Job | None:
    row = conn.execute(_BY_ID, {"job": job_id}).first()
    return None if row is None else to_job(row)


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


def _search_text(new: NewJob) -> str:
    return f"{new.request.get('prompt') or ''}\n{new.client_reference or ''}".casefold()
