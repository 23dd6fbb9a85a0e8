"""Pausing, resuming and cancelling the jobs of a batch, a part at a time.

A part is a transaction of its own: each move of a job moves the counters of its tenant, and on
PostgreSQL a row that changes thousands of times in one transaction is ever longer to find. Rows are
locked in the order batch, jobs, then as `store.locks` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, Select, and_, column, exists, or_, select, text, update

from vidmill.domain.batch import BatchState, RowState
from vidmill.domain.job import Job, JobState, Phase
from vidmill.store import batches
from vidmill.store.batch_tables import batch_rows
from vidmill.store.batch_tables import batches as batch_table
from vidmill.store.batches import Batch
from vidmill.store.locks import lock_flows
from vidmill.store.models import jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork

PART = 100
"""Jobs moved in one transaction. So 10,000 take PostgreSQL 7 s; with 500, or 50, twice as long."""

NEVER = 253_402_300_799.0
"""Paused until then, the last second of the year 9999; whoever resumes comes before."""

_PAUSE: dict[str, Any] = {"state": JobState.DELAYED, "phase": Phase.PAUSED, "not_before": NEVER}
_PAUSED = and_(jobs.c.state == JobState.DELAYED, jobs.c.phase == Phase.PAUSED)
_WAITS = or_(
    jobs.c.state == JobState.QUEUED,
    and_(jobs.c.state == JobState.DELAYED, jobs.c.phase != Phase.PAUSED),
)
_CANCELLABLE = jobs.c.state.in_([JobState.QUEUED, JobState.DELAYED, JobState.FOLLOWING])


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What one part did. `after` leads to the next part; None = that was the last."""

    jobs: Sequence[Job]
    after: int | None


NUM_PAUSED = (
    text("""
    SELECT count(*)
      FROM batches CROSS JOIN batch_rows r CROSS JOIN jobs j
     WHERE batches.state IN ('processing', 'paused', 'cancelling')
       AND batches.state = 'paused' AND +batches.tenant_id = :tenant
       AND r.batch_id = batches.id AND r.state = 'active' AND j.id = r.job_id
       AND j.state = 'delayed' AND j.phase = 'paused'""")
    .columns(column("num_paused", Integer))
    .scalar_subquery()
)
"""SQL for how many jobs of the tenant `:tenant` paused batches hold: 8 µs where none is paused, 6
ms where 5000 jobs are (PostgreSQL). It goes by the open batches of all tenants, a few: their
states are named as that index does, the plus and the joins keep SQLite from another way."""

Move = Callable[[UnitOfWork, Batch, int], Moved]
"""Moves the part of a batch's jobs that follows a row number; nothing if its state has changed."""


def pause(uow: UnitOfWork, batch: Batch, after: int) -> Moved:
    """Keep waiting jobs from being claimed, but for those that somebody else's job follows."""
    which = and_(_WAITS, ~_is_followed(outside=batch.id))
    return _move(uow, batch, after, which=which, values=_PAUSE)


def resume(uow: UnitOfWork, batch: Batch, after: int) -> Moved:
    """Queue what was paused, each in its old place."""
    values = {"state": JobState.QUEUED, "phase": Phase.WAITING, "not_before": None}
    return _move(uow, batch, after, which=_PAUSED, values=values)


def cancel(uow: UnitOfWork, batch: Batch, after: int) -> Moved:
    """Cancel the jobs that wait and that nobody follows; see `left` for the others."""
    values = {"state": JobState.CANCELLED, "phase": Phase.DONE, "finished_at": uow.now}
    return _move(uow, batch, after, which=and_(_CANCELLABLE, ~_is_followed()), values=values)


def left(uow: UnitOfWork, batch: Batch) -> list[Job]:
    """Return the jobs under way that were not asked to stop yet."""
    query = _active(batch).where(jobs.c.is_cancel_requested.is_(False))
    return [to_job(row) for row in uow.conn.execute(query.with_only_columns(*jobs.columns))]


def keep_paused(uow: UnitOfWork, job_id: int) -> Any:
    """Pause a job, queued and held, if its batch is paused, as `pause` would; return its new row.

    A batch that somebody changes at this moment counts for nothing: he moves its jobs afterwards.
    """
    mine = batch_rows.c.job_id == job_id
    query = select(batch_table).join(batch_rows, batch_rows.c.batch_id == batch_table.c.id)
    paused = query.where(mine, batch_table.c.state == BatchState.PAUSED)
    batch = uow.conn.execute(
        paused.with_for_update(read=True, skip_locked=True, of=batch_table)
    ).first()
    if batch is None:
        return None
    which = (jobs.c.id == job_id, _WAITS, ~_is_followed(outside=batch.id))
    return uow.conn.execute(update(jobs).where(*which).values(_PAUSE).returning(jobs)).first()


def _move(
    uow: UnitOfWork, batch: Batch, after: int, *, which: Any, values: dict[str, Any]
) -> Moved:
    if not batches.is_still(uow, batch):
        return Moved(jobs=(), after=None)
    part = _active(batch).where(batch_rows.c.number > after, which)
    found = uow.conn.execute(part.order_by(batch_rows.c.number).limit(PART)).all()
    if not found:
        return Moved(jobs=(), after=None)
    ids = sorted(row.id for row in found)
    uow.conn.execute(
        select(jobs.c.id).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
    )
    # A statement of its own sees who has moved, or was followed, until the jobs were ours.
    held = uow.conn.execute(select(jobs).where(jobs.c.id.in_(ids), which)).all()
    lock_flows(uow, held)
    mine = jobs.c.id.in_([row.id for row in held])
    moved = uow.conn.execute(update(jobs).where(mine).values(values).returning(jobs))
    after_this = found[-1].number if len(found) == PART else None
    return Moved(jobs=[to_job(row) for row in moved], after=after_this)


def _active(batch: Batch) -> Select[Any]:
    """Return the query for the jobs of a batch that are under way."""
    return (
        select(jobs.c.id, batch_rows.c.number)
        .join(batch_rows, batch_rows.c.job_id == jobs.c.id)
        .where(batch_rows.c.batch_id == batch.id, batch_rows.c.state == RowState.ACTIVE)
    )


def _is_followed(*, outside: int | None = None) -> Any:
    """Return SQL that tells whether a job is followed, or followed by one *outside* a batch."""
    follower = jobs.alias("follower")
    follows = and_(follower.c.leader_id == jobs.c.id, follower.c.state == JobState.FOLLOWING)
    if outside is None:
        return exists().where(follows)
    inside = exists().where(batch_rows.c.job_id == follower.c.id, batch_rows.c.batch_id == outside)
    return exists().where(follows, ~inside.correlate(follower))
