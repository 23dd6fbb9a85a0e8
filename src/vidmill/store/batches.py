"""The tables of batches: adding, reading, counting, linking rows to jobs, ending, forgetting.

The row of a batch is locked before any job of it. How a row's task ended is written by a trigger on
`jobs`, after all else that it touches; see `store.locks`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from vidmill.domain.batch import OPEN, OVER, BatchState, RowState
from vidmill.domain.job import Job
from vidmill.store import webhooks
from vidmill.store.batch_tables import batch_rows, batches
from vidmill.store.models import IS_SHOWN, JOB_COLUMNS, jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork

OVER_EVENT = "t2v.batch.completed"
"""What webhooks are told of a batch whose last task is over, even if it was cancelled."""


@dataclass(frozen=True, kw_only=True)
class NewRow:
    """A row as it was checked: with an order to queue, or with what is wrong."""

    line: int
    custom_id: str | None
    wanted: Mapping[str, Any] | None
    problems: Sequence[Mapping[str, Any]] = ()
    price_credits: int = 0


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """A batch about to be stored. `expires_at`, Unix seconds: forgotten then if not confirmed."""

    public_id: str
    tenant_id: int
    user_id: int
    name: str | None
    source: Mapping[str, Any]
    webhook_url: str | None
    expires_at: float
    rows: Sequence[NewRow]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch. Instants are Unix seconds.

    Attributes:
        is_moving: Some of its jobs are not yet where `state` wants them.
        source: How the rows came: format, encoding, delimiter.
        expires_at: When it is forgotten; None once it is confirmed.
    """

    id: int
    public_id: str
    tenant_id: int
    user_id: int
    name: str | None
    state: BatchState
    is_moving: bool
    source: Mapping[str, Any]
    webhook_url: str | None
    created_at: float
    expires_at: float | None
    confirmed_at: float | None
    finished_at: float | None


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """One row. `job` is None before it is queued, and after its task was erased."""

    batch_id: int
    number: int
    line: int
    custom_id: str | None
    state: RowState
    wanted: Mapping[str, Any] | None
    problems: Sequence[Mapping[str, Any]]
    price_credits: int
    job: Job | None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many rows of a batch are in each state, and their credits.

    Attributes:
        num_running: Of the active ones, those whose clip was begun.
    """

    rows: Mapping[RowState, int] = field(default_factory=dict)
    credits: Mapping[RowState, int] = field(default_factory=dict)
    num_running: int = 0


@dataclass(frozen=True, kw_only=True)
class Link:
    """What became of row *number*: the job that makes it, or its problems."""

    number: int
    job: Job | None
    problems: Sequence[Mapping[str, Any]] = ()


_ROW_COLUMNS = tuple(column.name for column in batch_rows.columns)
_IS_OPEN = text("batches.state IN ('processing', 'paused', 'cancelling')")
"""As the index says it, word for word: SQLite uses a partial index for nothing else."""

_ADD_RECORDS = text(
    f"INSERT INTO batch_rows ({', '.join(_ROW_COLUMNS)})"  # noqa: S608  our own columns
    " SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(batch_id bigint, number int,"
    " line int, custom_id text, state text, wanted jsonb, problems jsonb, price_credits int,"
    " job_id bigint, task_id text)"
)
_LINK_RECORDS = text("""
    UPDATE batch_rows b
       SET state = r.state, wanted = NULL, problems = r.problems, price_credits = r.price_credits,
           job_id = r.job_id, task_id = r.task_id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb))
           AS r(number int, state text, problems jsonb, price_credits int, job_id bigint,
                task_id text)
     WHERE b.batch_id = :batch AND b.number = r.number AND b.state = :was""")
_LINK = text("""
    UPDATE batch_rows
       SET state = :state, wanted = NULL, problems = :problems, price_credits = :price_credits,
           job_id = :job_id, task_id = :task_id
     WHERE batch_id = :batch AND number = :number AND state = :was""")

# A task that was begun never falls back to queued, nor does one whose leader was begun.
_RUNNING = text("""
    SELECT count(*)
      FROM batch_rows r JOIN jobs j ON j.id = r.job_id LEFT JOIN jobs l ON l.id = j.leader_id
     WHERE r.batch_id = :batch AND r.state = 'active'
       AND (j.attempt > 0 OR j.state = 'following' AND l.attempt > 0)""")


def add(uow: UnitOfWork, new: NewBatch) -> Batch:
    """Store a checked batch."""
    values = {
        "public_id": new.public_id,
        "tenant_id": new.tenant_id,
        "user_id": new.user_id,
        "name": new.name,
        "state": BatchState.CHECKED,
        "source": dict(new.source),
        "webhook_url": new.webhook_url,
        "created_at": uow.now,
        "expires_at": new.expires_at,
    }
    row = uow.conn.execute(insert(batches).values(values).returning(batches)).one()
    rows = [_new_row(row.id, number, one) for number, one in enumerate(new.rows, 1)]
    if uow.conn.dialect.name == "postgresql":  # as one value; see `insertion`
        uow.conn.execute(_ADD_RECORDS, {"rows": json.dumps(rows)})
    else:
        uow.conn.execute(insert(batch_rows), rows)
    return _to_batch(row)


def get(conn: Connection, public_id: str, tenant_id: int, *, now: float) -> Batch | None:
    """Return the tenant's batch, unless it was forgotten."""
    row = conn.execute(select(batches).where(*_named(public_id, tenant_id))).first()
    return None if row is None else _unless_expired(_to_batch(row), now)


def hold(uow: UnitOfWork, public_id: str, tenant_id: int) -> Batch | None:
    """Return what `get` does, locked until the transaction ends."""
    query = select(batches).where(*_named(public_id, tenant_id)).with_for_update()
    row = uow.conn.execute(query).first()
    return None if row is None else _unless_expired(_to_batch(row), uow.now)


def is_still(uow: UnitOfWork, batch: Batch) -> bool:
    """Whether the batch is in the state that *batch* has; it stays so in this transaction."""
    query = select(batches.c.state).where(batches.c.id == batch.id)
    state = uow.conn.execute(query.with_for_update(read=True)).scalar()
    return state == batch.state


def page(
    conn: Connection, tenant_id: int, *, limit: int, now: float, after: int | None = None
) -> list[Batch]:
    """Return up to *limit* batches of the tenant, newest first; *after* ends the page before."""
    query = select(batches).where(
        batches.c.tenant_id == tenant_id,
        (batches.c.expires_at.is_(None)) | (batches.c.expires_at > now),
    )
    if after is not None:
        query = query.where(batches.c.id < after)
    rows = conn.execute(query.order_by(batches.c.id.desc()).limit(limit))
    return [_to_batch(row) for row in rows]


def waiting(conn: Connection) -> list[Batch]:
    """Return the open batches that wait for somebody: to move their jobs, or to end them."""
    active = and_(batch_rows.c.batch_id == batches.c.id, batch_rows.c.state == RowState.ACTIVE)
    is_due = or_(batches.c.is_moving, ~exists().where(active))
    rows = conn.execute(select(batches).where(_IS_OPEN, is_due).order_by(batches.c.id))
    return [_to_batch(row) for row in rows]


def tally(conn: Connection, batch_id: int) -> Tally:
    """Count the rows of a batch."""
    asked = {"batch": batch_id}
    found = {RowState(row.state): row for row in conn.execute(_TALLY, asked)}
    has_active = RowState.ACTIVE in found
    return Tally(
        rows={state: row.n for state, row in found.items()},
        credits={state: row.in_credits for state, row in found.items()},
        num_running=conn.execute(_RUNNING, asked).scalar_one() if has_active else 0,
    )


_TALLY = text(
    "SELECT state, count(*) AS n, sum(price_credits) AS in_credits FROM batch_rows"
    " WHERE batch_id = :batch GROUP BY state"
)


def rows(
    conn: Connection,
    batch_id: int,
    *,
    limit: int,
    after: int = 0,
    states: Iterable[RowState] = RowState,
) -> list[BatchRow]:
    """Return up to *limit* rows in *states* that follow row number *after*, with their jobs."""
    query = select(batch_rows).where(
        batch_rows.c.batch_id == batch_id,
        batch_rows.c.number > after,
        batch_rows.c.state.in_(list(states)),
    )
    found = conn.execute(query.order_by(batch_rows.c.number).limit(limit)).all()
    known = _jobs(conn, [row.job_id for row in found if row.job_id is not None])
    return [_to_row(row, known.get(row.job_id)) for row in found]


def last_active(conn: Connection, batch_id: int) -> Job | None:
    """Return the job of the last row that is under way."""
    query = (
        select(*JOB_COLUMNS)
        .join(batch_rows, batch_rows.c.job_id == jobs.c.id)
        .where(batch_rows.c.batch_id == batch_id, batch_rows.c.state == RowState.ACTIVE)
        .order_by(batch_rows.c.number.desc())
        .limit(1)
    )
    row = conn.execute(query).first()
    return None if row is None else to_job(row)


def link(uow: UnitOfWork, batch_id: int, links: Sequence[Link], *, was: RowState) -> int:
    """Write what became of some rows that were *was*; return how many still were."""
    records = [_link_values(one) for one in links]
    if uow.conn.dialect.name == "postgresql":
        values = {"rows": json.dumps(records), "batch": batch_id, "was": was}
        return uow.conn.execute(_LINK_RECORDS, values).rowcount
    for record in records:
        record["problems"] = None if record["problems"] is None else json.dumps(record["problems"])
        record |= {"batch": batch_id, "was": was}
    return uow.conn.execute(_LINK, records).rowcount


def set_state(
    uow: UnitOfWork, batch: Batch, state: BatchState, *, is_moving: bool = False, **changes: Any
) -> Batch:
    """Put a batch, held, into *state*; *changes* are further columns."""
    values = {"state": state, "is_moving": is_moving, **changes}
    changed = update(batches).where(batches.c.id == batch.id).values(values).returning(batches)
    return _to_batch(uow.conn.execute(changed).one())


def settled(uow: UnitOfWork, batch: Batch) -> None:
    """Note that all jobs of the batch are where its state wants them."""
    here = (batches.c.id == batch.id, batches.c.state == batch.state)
    uow.conn.execute(update(batches).where(*here).values(is_moving=False))


def end(uow: UnitOfWork, batch_id: int) -> Batch | None:
    """End an open batch of which no task is under way, and let webhooks be told.

    None: one is, or it ended before.
    """
    query = select(batches).where(batches.c.id == batch_id, _IS_OPEN).with_for_update()
    row = uow.conn.execute(query).first()
    active = and_(batch_rows.c.batch_id == batch_id, batch_rows.c.state == RowState.ACTIVE)
    if row is None or uow.conn.execute(select(exists().where(active))).scalar():
        return None
    batch = _to_batch(row)
    webhooks.record(
        uow,
        tenant_id=batch.tenant_id,
        event_type=OVER_EVENT,
        subject=batch.public_id,
        url=batch.webhook_url,
    )
    return set_state(uow, batch, OVER[batch.state], finished_at=uow.now)


def remove(uow: UnitOfWork, batch: Batch) -> None:
    """Delete a batch that has no task under way, and its rows; tasks stay."""
    assert batch.state not in OPEN, "the caller has looked"
    uow.conn.execute(delete(batch_rows).where(batch_rows.c.batch_id == batch.id))
    uow.conn.execute(delete(batches).where(batches.c.id == batch.id))


def count_unconfirmed(conn: Connection, tenant_id: int) -> int:
    mine = (batches.c.tenant_id == tenant_id, batches.c.expires_at.is_not(None))
    return int(conn.execute(select(func.count()).where(*mine)).scalar_one())


def expired(uow: UnitOfWork, *, limit: int) -> list[Batch]:
    """Return up to *limit* batches that nobody confirmed in time, locked."""
    query = select(batches).where(batches.c.expires_at <= uow.now).order_by(batches.c.expires_at)
    rows = uow.conn.execute(query.limit(limit).with_for_update(skip_locked=True))
    return [_to_batch(row) for row in rows]


def _named(public_id: str, tenant_id: int) -> tuple[Any, ...]:
    return batches.c.public_id == public_id, batches.c.tenant_id == tenant_id


def _unless_expired(batch: Batch, now: float) -> Batch | None:
    return None if batch.expires_at is not None and batch.expires_at <= now else batch


def _jobs(conn: Connection, ids: Sequence[int]) -> dict[int, Job]:
    if not ids:
        return {}
    query = select(*JOB_COLUMNS).where(jobs.c.id.in_(ids), IS_SHOWN)
    return {row.id: to_job(row) for row in conn.execute(query)}


def _new_row(batch_id: int, number: int, row: NewRow) -> dict[str, Any]:
    values = (
        batch_id,
        number,
        row.line,
        row.custom_id,
        RowState.INVALID if row.wanted is None else RowState.READY,
        None if row.wanted is None else dict(row.wanted),
        list(row.problems) or None,
        row.price_credits,
        None,
        None,
    )
    return dict(zip(_ROW_COLUMNS, values, strict=True))


def _link_values(one: Link) -> dict[str, Any]:
    job = one.job
    return {
        "number": one.number,
        "state": RowState.INVALID if job is None else _row_state(job),
        "problems": list(one.problems) or None,
        "price_credits": 0 if job is None else job.price_credits,
        "job_id": None if job is None else job.id,
        "task_id": None if job is None else job.public_id,
    }


def _row_state(job: Job) -> RowState:
    return RowState(job.state.value) if job.is_terminal else RowState.ACTIVE


def _to_batch(row: Any) -> Batch:
    values = dict(row._mapping)  # noqa: SLF001  the documented way to a row's names
    return Batch(**{**values, "state": BatchState(values["state"])})


def _to_row(row: Any, job: Job | None) -> BatchRow:
    values = dict(row._mapping)  # noqa: SLF001
    del values["job_id"], values["task_id"]
    values["state"] = RowState(values["state"])
    return BatchRow(**{**values, "problems": values["problems"] or (), "job": job})
