"""Who works for a pool, and for how long each is still busy: what a forecast divides by."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from vidmill.domain.eta import busy_s
from vidmill.domain.job import Lane, Phase
from vidmill.store.models import workers
from vidmill.store.workers import WorkerState

_FREES_GPU = frozenset({Phase.FINISHING, Phase.STORING})
"""Phases in which a worker renders the next clip already."""

_RUNNING = text("""
    SELECT id, worker, pool, lane, est_cost_s, started_at, progress, phase FROM jobs
     WHERE state = 'running'""")
_BREAKERS = text("""
    SELECT count(*) FROM breakers
     WHERE pool = :pool AND profile = :profile AND state <> 'closed'""")


@dataclass(frozen=True, kw_only=True)
class Hands:
    """The ready workers of a pool.

    Attributes:
        busy_s: Seconds for which each still renders, ascending; 0 = idle.
        running: Ids of the pool's own running jobs, by lane.
    """

    busy_s: tuple[float, ...]
    running: Mapping[Lane, Sequence[int]]


def of_pool(conn: Connection, pool: str, *, now: float) -> Hands:
    """Return those who serve *pool* at once, by being of it or by their class's routes."""
    ready = select(workers.c.id, workers.c.pool, workers.c.pools).where(
        workers.c.lease_until >= now, workers.c.state == WorkerState.READY
    )
    left_s: dict[str, float] = defaultdict(float)
    running: dict[Lane, list[int]] = defaultdict(list)
    for row in conn.execute(_RUNNING):
        if row.pool == pool:
            running[Lane(row.lane)].append(row.id)
        if row.phase not in _FREES_GPU:
            elapsed_s = now - row.started_at
            left = busy_s(row.est_cost_s, elapsed_s=elapsed_s, progress=row.progress)
            left_s[row.worker] = max(left_s[row.worker], left)
    serving = [w.id for w in conn.execute(ready) if pool == w.pool or pool in w.pools]
    return Hands(
        busy_s=tuple(sorted(left_s.get(worker, 0.0) for worker in serving)),
        running=running,
    )


def is_resting(conn: Connection, pool: str, profile: str) -> bool:
    """Return whether the circuit breaker keeps *pool* from working normally."""
    return bool(conn.execute(_BREAKERS, {"pool": pool, "profile": profile}).scalar_one())
