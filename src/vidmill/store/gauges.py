"""What an operator watches: queues and workers in numbers, each by one cheap statement."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from vidmill.domain.job import Lane
from vidmill.store.models import flows, workers


@dataclass(frozen=True, kw_only=True)
class QueueGauge:
    """One lane of one pool. `oldest_at`: when the one that waits longest was submitted."""

    pool: str
    lane: Lane
    queued: int
    queued_cost_s: float
    oldest_at: float | None


_QUEUES = select(
    flows.c.pool,
    flows.c.lane,
    func.sum(flows.c.queued).label("queued"),
    func.sum(flows.c.queued_cost_s).label("queued_cost_s"),
    func.min(flows.c.head_at).label("oldest_at"),
).group_by(flows.c.pool, flows.c.lane)
_QUEUED = select(func.coalesce(func.sum(flows.c.queued), 0))


def queues(conn: Connection) -> list[QueueGauge]:
    """Return every lane that ever held a job."""
    return [
        QueueGauge(
            pool=row.pool,
            lane=Lane(row.lane),
            queued=int(row.queued),
            queued_cost_s=float(row.queued_cost_s),
            oldest_at=row.oldest_at if row.queued else None,
        )
        for row in conn.execute(_QUEUES)
    ]


def queued_in_all(conn: Connection) -> int:
    return int(conn.execute(_QUEUED).scalar_one())


def workers_by_state(conn: Connection, *, now: float) -> dict[tuple[str, ...], int]:
    """Return how many workers live, by pool and state."""
    query = (
        select(workers.c.pool, workers.c.state, func.count())
        .where(workers.c.lease_until >= now)
        .group_by(workers.c.pool, workers.c.state)
    )
    return {(pool, state): int(count) for pool, state, count in conn.execute(query)}
