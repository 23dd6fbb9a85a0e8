"""What an operator watches: queues and workers in numbers, each by one cheap statement."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from vidmill.domain.job import Lane
from vidmill.domain.storyboard import OPEN, BoardState
from vidmill.store.models import flows, jobs, workers
from vidmill.store.storyboard_tables import IS_OPEN, storyboard_shots, storyboards


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


def storyboards_by_state(conn: Connection) -> dict[tuple[str, ...], int]:
    """Return how many storyboards are under way, by state."""
    query = select(storyboards.c.state, func.count()).where(IS_OPEN).group_by(storyboards.c.state)
    found: dict[tuple[str, ...], int] = {(state.value,): 0 for state in OPEN}
    return found | {(state,): int(count) for state, count in conn.execute(query)}


def joining_since(conn: Connection) -> float | None:
    """Return when the storyboard that is not joined yet for longest had its last shot."""
    last_shot = (
        select(func.max(jobs.c.finished_at))
        .join(storyboard_shots, storyboard_shots.c.job_id == jobs.c.id)
        .where(storyboard_shots.c.storyboard_id == storyboards.c.id)
        .scalar_subquery()
    )
    query = select(func.min(last_shot)).where(IS_OPEN, storyboards.c.state == BoardState.JOINING)
    since = conn.execute(query).scalar()
    return None if since is None else float(since)
