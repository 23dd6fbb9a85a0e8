"""Identical requests of a tenant: one is rendered, the others follow it or get its files.

A job under way with a cache key leads; a unique index allows one leader a key. Whoever looks for
a leader or a finished original holds its row against settling and erasing until he has stored what
depends on it. Heartbeats and claims of the leader go on meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from sqlalchemy import ColumnElement, bindparam, exists, or_, select, text, update

from vidmill.domain.job import Job, JobState, Phase
from vidmill.store.batch_moves import keep_paused
from vidmill.store.direct import Direct
from vidmill.store.locks import lock_flows
from vidmill.store.models import jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork

LIVE = text("state IN ('queued', 'delayed', 'running', 'review')")
"""As the index says it, word for word: SQLite uses a partial index for nothing else."""

_ORIGINAL = text("cache_key IS NOT NULL AND state = 'succeeded' AND files_of IS NULL")
_FOLLOWING = text("state = 'following'")

ASKED_AT_ONCE = 1000
"""Keys in one statement."""


@dataclass(frozen=True, kw_only=True)
class Leader:
    """A job under way that others may follow."""

    id: int
    lane: int
    state: JobState
    is_paused: bool

    def is_slower_than(self, lane: int) -> bool:
        """Whether it is paused, or still waits behind what a job of *lane* would wait behind."""
        waits = self.state in {JobState.QUEUED, JobState.DELAYED}
        return self.is_paused or (self.lane > lane and waits)


def _leader_in(row: Any) -> Leader:
    job_id, lane, state, phase = row
    return Leader(id=job_id, lane=lane, state=JobState(state), is_paused=phase == Phase.PAUSED)


_LEADER_COLUMNS = (jobs.c.id, jobs.c.lane, jobs.c.state, jobs.c.phase)
_LEADER = Direct(
    select(*_LEADER_COLUMNS)
    .where(jobs.c.tenant_id == bindparam("tenant"), jobs.c.cache_key == bindparam("key"), LIVE)
    .with_for_update(read=True, key_share=True)
)
_FIND_ORIGINAL = Direct(
    select(jobs.c.id)
    .where(
        jobs.c.tenant_id == bindparam("tenant"),
        jobs.c.cache_key == bindparam("key"),
        _ORIGINAL,
        jobs.c.finished_at >= bindparam("since"),
        jobs.c.phase != bindparam("erasing"),
    )
    .order_by(jobs.c.id.desc())
    .with_for_update(read=True, key_share=True)
)


def has_twin() -> ColumnElement[bool]:
    """Return SQL that tells whether `leader` or `original` finds one; binds as `since` gives."""
    same = (jobs.c.tenant_id == bindparam("tenant"), jobs.c.cache_key == bindparam("key"))
    finished = (_ORIGINAL, jobs.c.finished_at >= bindparam("since"))
    under_way = exists().where(*same, LIVE)
    return or_(under_way, exists().where(*same, *finished, jobs.c.phase != bindparam("erasing")))


def since(uow: UnitOfWork, ttl_s: float) -> dict[str, Any]:
    """Return what an original must be younger than, as statements bind it; no *ttl_s*, no past."""
    return {"since": uow.now - ttl_s if ttl_s > 0 else inf, "erasing": Phase.ERASING}


def leader(uow: UnitOfWork, tenant_id: int, key: str) -> Leader | None:
    """Return the job under way that makes this clip, held until the transaction ends."""
    row = _LEADER.first(uow.conn, {"tenant": tenant_id, "key": key})
    return None if row is None else _leader_in(row)


def original(uow: UnitOfWork, tenant_id: int, key: str, *, ttl_s: float) -> Job | None:
    """Return the job that made this clip, held likewise, if it did so in the last *ttl_s*."""
    asked = {"tenant": tenant_id, "key": key} | since(uow, ttl_s)
    row = _FIND_ORIGINAL.first(uow.conn, asked)
    if row is None:
        return None
    return to_job(uow.conn.execute(select(jobs).where(jobs.c.id == row[0])).one())


def leaders(uow: UnitOfWork, tenant_id: int, keys: Sequence[str]) -> dict[str, Leader]:
    """Return the leaders of many *keys*, as `leader` does."""
    found: dict[str, Leader] = {}
    for part in _parts(keys):
        query = select(*_LEADER_COLUMNS, jobs.c.cache_key).where(
            jobs.c.tenant_id == tenant_id, jobs.c.cache_key.in_(part), LIVE
        )
        held = query.order_by(jobs.c.id).with_for_update(read=True, key_share=True)
        for row in uow.conn.execute(held):
            found[row.cache_key] = _leader_in(row[:-1])
    return found


def originals(
    uow: UnitOfWork, tenant_id: int, keys: Sequence[str], *, ttl_s: float
) -> dict[str, Job]:
    """Return the originals of many *keys*, as `original` does."""
    found: dict[str, Job] = {}
    for part in _parts(keys) if ttl_s > 0 else ():
        query = select(jobs).where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.cache_key.in_(part),
            _ORIGINAL,
            jobs.c.finished_at >= uow.now - ttl_s,
            jobs.c.phase != Phase.ERASING,
        )
        held = query.order_by(jobs.c.id).with_for_update(read=True, key_share=True)
        found |= {row.cache_key: to_job(row) for row in uow.conn.execute(held)}
    return found


def lock_followers(uow: UnitOfWork, job: Any) -> Sequence[Any]:
    """Return the rows that follow *job*, the oldest first; call it with *job* locked."""
    if job.cache_key is None:
        return ()
    query = select(jobs).where(jobs.c.leader_id == job.id, _FOLLOWING).order_by(jobs.c.id)
    return uow.conn.execute(query.with_for_update()).all()


def lock_succession(uow: UnitOfWork, job: Any, followers: Sequence[Any]) -> None:
    """Hold what is needed to queue the first of *followers* once *job* is cancelled."""
    if followers:
        lock_flows(uow, [job, followers[0]])


def end_alike(uow: UnitOfWork, leader: Job, followers: Sequence[Any]) -> tuple[Job, ...]:
    """End *followers* as *leader* ended: with its files, or with its error."""
    if not followers:
        return ()
    values: Mapping[str, Any] = {
        "state": leader.state,
        "phase": Phase.DONE,
        "progress": leader.progress,
        "finished_at": leader.finished_at,
        "result": None if leader.result is None else leader.result.to_json(),
        "files_of": None if leader.result is None else leader.public_id,
        "error_code": leader.error_code,
        "error_message": leader.error_message,
    }
    query = update(jobs).where(jobs.c.leader_id == leader.id, _FOLLOWING).values(values)
    return _in_order(uow.conn.execute(query.returning(jobs)))


def succeed(uow: UnitOfWork, leader: Job, followers: Sequence[Any]) -> tuple[Job, ...]:
    """Queue the oldest of *followers* in place of *leader*, cancelled before; others follow it.

    If its batch is paused, it is paused too.
    """
    if not followers:
        return ()
    first = followers[0].id
    others = (jobs.c.leader_id == leader.id, _FOLLOWING, jobs.c.id != first)
    uow.conn.execute(update(jobs).where(*others).values(leader_id=first))
    queued = update(jobs).where(jobs.c.id == first, _FOLLOWING)
    queued = queued.values(state=JobState.QUEUED, phase=Phase.WAITING, leader_id=None)
    row = uow.conn.execute(queued.returning(jobs)).one()
    return (to_job(keep_paused(uow, first) or row),)


def _in_order(rows: Iterable[Any]) -> tuple[Job, ...]:
    return tuple(sorted((to_job(row) for row in rows), key=lambda job: job.id))


def _parts(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[n : n + ASKED_AT_ONCE] for n in range(0, len(keys), ASKED_AT_ONCE))
