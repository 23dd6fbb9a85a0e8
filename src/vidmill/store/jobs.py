"""The job table: putting jobs in, finding and listing them.

What moves a job lies in `claim`, `settle` and `upkeep`, what tells its place in `places`; all are
re-exported here, so that callers say `jobs.claim`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select
from sqlalchemy import insert as insert_into

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import QueueFull
from vidmill.domain.job import MAX_ATTEMPTS, WIRE, Job, JobState, Lane, WireStatus
from vidmill.store.claim import Owned, Progress, claim, heartbeat
from vidmill.store.counters import Drift, audit, find_drift
from vidmill.store.direct import Direct
from vidmill.store.glance import get
from vidmill.store.models import jobs, tenants
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
    parent: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows; instants in Unix seconds, the end exclusive."""

    status: WireStatus | None = None
    client_reference: str | None = None
    submitted_from: float | None = None
    submitted_before: float | None = None


_TENANT = Direct(
    select(tenants.c.queued, tenants.c.cap_queued).where(tenants.c.id == bindparam("tenant"))
)
_INSERT = Direct(
    insert_into(jobs).returning(jobs.c.id),
    columns=[*NewJob.__dataclass_fields__, "state", "submitted_at", "attempt"],
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
    row = _INSERT.first(uow.conn, {**values, **texts})
    assert row is not None  # RETURNING
    return Job(id=row[0], **values)


def get_by_id(conn: Connection, job_id: int) -> Job | None:
    row = conn.execute(_BY_ID, {"job": job_id}).first()
    return None if row is None else to_job(row)


_NO_FILTER = JobFilter()


def page(
    conn: Connection,
    tenant_id: int,
    *,
    limit: int,
    filters: JobFilter = _NO_FILTER,
    after: int | None = None,
) -> list[Job]:
    """Return up to *limit* jobs, newest first; *after* is the last id of the page before."""
    query = _filtered(filters).where(jobs.c.tenant_id == tenant_id)
    if after is not None:
        query = query.where(jobs.c.id < after)
    rows = conn.execute(query.order_by(jobs.c.id.desc()).limit(limit))
    return [to_job(row) for row in rows]


def _filtered(filters: JobFilter) -> Select[Any]:
    query = select(jobs)
    if filters.status is not None:
        states = [state.value for state, status in WIRE.items() if status == filters.status]
        query = query.where(jobs.c.state.in_(states))
    if filters.client_reference is not None:
        query = query.where(jobs.c.client_reference == filters.client_reference)
    if filters.submitted_from is not None:
        query = query.where(jobs.c.submitted_at >= filters.submitted_from)
    if filters.submitted_before is not None:
        query = query.where(jobs.c.submitted_at < filters.submitted_before)
    return query
