"""Who works: one row per supervisor process, renewed with its heartbeat. Also the leader's lease.

A worker's id is random and new at each start of its process: an id used again (a host's name, say)
would let a restarted worker pass for the one that lost a job.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from vidmill.store.models import leases, workers
from vidmill.store.unit import UnitOfWork


class WorkerState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    BROKEN = "broken"  # the model cannot be loaded; `detail` says why
    DRAINING = "draining"


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One supervisor; `detail` says for people what it is busy with, `warming 1/2`.

    Attributes:
        pool: The one it serves first.
        pools: All it serves without a wait, that one among them.
    """

    id: str
    pool: str
    host: str
    pid: int
    profile: str
    state: WorkerState
    detail: str
    started_at: float
    lease_until: float
    worker_class: str = ""
    pools: tuple[str, ...] = ()


_REGISTER = text("""
    INSERT INTO workers (id, pool, host, pid, profile, state, detail, started_at, lease_until,
                         worker_class, pools)
         VALUES (:worker, :pool, :host, :pid, :profile, 'loading', '', :now, :until,
                 :worker_class, :pools)
    ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until""").bindparams(
    bindparam("pools", type_=workers.c.pools.type)
)
_RENEW = text("""
    UPDATE workers SET lease_until = :until, state = :state, detail = :detail
     WHERE id = :worker""")
_IDLE = text("""
    SELECT w.pool, w.pools FROM workers w
     WHERE w.state = 'ready' AND w.lease_until >= :now
       AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.worker = w.id AND j.state = 'running')
""").columns(workers.c.pool, workers.c.pools)
_SEIZE = text("""
    INSERT INTO leases (name, holder, lease_until) VALUES (:name, :holder, :until)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
     WHERE leases.holder = excluded.holder OR leases.lease_until < :now""")


def register(
    uow: UnitOfWork,
    *,
    worker: str,
    pool: str,
    host: str,
    pid: int,
    profile: str,
    lease_s: float,
    worker_class: str = "",
    pools: Sequence[str] = (),
) -> None:
    """Make *worker* known; it is loading until `renew` says otherwise."""
    values = {"worker": worker, "pool": pool, "host": host, "pid": pid, "profile": profile}
    values |= {"worker_class": worker_class, "pools": list(pools) or [pool]}
    uow.conn.execute(_REGISTER, {**values, "now": uow.now, "until": uow.now + lease_s})


def renew(
    uow: UnitOfWork, *, worker: str, lease_s: float, state: WorkerState, detail: str = ""
) -> bool:
    """Say that *worker* lives and how; False when its row is gone and it must register again."""
    values = {"worker": worker, "state": state, "detail": detail, "until": uow.now + lease_s}
    return bool(uow.conn.execute(_RENEW, values).rowcount)


def drop(uow: UnitOfWork, worker: str) -> None:
    """Forget *worker*: it ended, or was found dead."""
    uow.conn.execute(workers.delete().where(workers.c.id == worker))


def drop_expired(uow: UnitOfWork, *, older_than_s: float) -> int:
    """Forget workers silent for longer than *older_than_s* past their lease; return how many."""
    gone = workers.c.lease_until < uow.now - older_than_s
    return uow.conn.execute(workers.delete().where(gone)).rowcount


def all_workers(conn: Connection, *, now: float, pool: str | None = None) -> list[Worker]:
    """Return the workers whose lease holds, all or those that serve *pool*, oldest first."""
    query = select(workers).where(workers.c.lease_until >= now)
    found = [_worker(row) for row in conn.execute(query.order_by(workers.c.started_at))]
    return [worker for worker in found if pool in (None, worker.pool, *worker.pools)]


def on_host(conn: Connection, host: str) -> list[Worker]:
    """Return every worker known on *host*, dead or alive: the kernel knows about their pids."""
    query = select(workers).where(workers.c.host == host).order_by(workers.c.started_at)
    return [_worker(row) for row in conn.execute(query)]


def idle_counts(conn: Connection, *, now: float) -> Counter[str]:
    """Return, by pool, how many workers that serve it are ready and hold no running job."""
    idle = conn.execute(_IDLE, {"now": now})
    return Counter(pool for row in idle for pool in {row.pool, *row.pools})


def seize_lease(uow: UnitOfWork, name: str, *, holder: str, lease_s: float) -> bool:
    """Take or renew the lease *name* for *holder*; False while somebody else's holds."""
    values = {"name": name, "holder": holder, "until": uow.now + lease_s, "now": uow.now}
    return bool(uow.conn.execute(_SEIZE, values).rowcount)


def free_lease(uow: UnitOfWork, name: str, *, holder: str | None = None) -> None:
    """Free the lease *name*, whoever holds it, or only if *holder* does."""
    query = leases.delete().where(leases.c.name == name)
    uow.conn.execute(query if holder is None else query.where(leases.c.holder == holder))


def _worker(row: Any) -> Worker:
    values = {**row._mapping, "state": WorkerState(row.state)}  # noqa: SLF001  a row's names
    values["pools"] = tuple(row.pools)
    return Worker(**values)
