"""How long the queue is, and where a job stands in it. Reads only, none grows with the queue."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, text

from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.scheduling import Flow, Place, Share, UserFlow, place, rank_in_flow
from vidmill.store.routes import Route

RANK_MAX = 10_000
"""A user's own jobs that are counted; whoever stands further back is told this much."""

_DEPTHS = text("""
    SELECT lane, sum(queued) AS queued, sum(queued_cost_s) AS cost_s, min(head_at) AS oldest_at
      FROM flows WHERE pool = :pool AND queued > 0 GROUP BY lane""")
_FLOWS = text("""
    SELECT f.lane, f.tenant_id, f.queued, f.queued_cost_s, f.vtime, coalesce(c.v, 0) AS v, t.weight
      FROM flows f JOIN tenants t ON t.id = f.tenant_id
      LEFT JOIN vclock c ON c.pool = f.pool AND c.lane = f.lane
     WHERE f.pool = :pool AND f.queued > 0""")
_CLOCKS = text("SELECT lane, lane_v FROM vclock WHERE pool = :pool")
_USERS = text("""
    SELECT f.lane, f.tenant_id, f.user_id, f.queued, f.queued_cost_s, f.vtime,
           coalesce(t.user_v, 0) AS v, coalesce(u.weight, 1) AS weight
      FROM user_flows f
      LEFT JOIN flows t ON t.pool = f.pool AND t.lane = f.lane AND t.tenant_id = f.tenant_id
      LEFT JOIN users u ON u.id = f.user_id
     WHERE f.pool = :pool AND f.queued > 0""")
_SOONER = text("""
    SELECT count(*) FROM (
        SELECT 1 FROM jobs
         WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND user_id = :user
           AND state = 'queued' AND (rank < :rank OR rank = :rank AND id < :job)
         LIMIT :most) AS sooner
    HAVING EXISTS (SELECT 1 FROM jobs WHERE id = :job AND state = 'queued')""")
_QUEUED_IDS = text("""
    SELECT rank, id FROM jobs
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND user_id = :user
       AND state = 'queued'
     ORDER BY rank, id LIMIT :most""")

_FlowKey = tuple[Lane, int]
_UserKey = tuple[Lane, int, int]


@dataclass(frozen=True, kw_only=True)
class LaneDepth:
    """What waits in one lane of a pool; `oldest_at` in Unix seconds."""

    queued: int
    queued_cost_s: float
    oldest_at: float


@dataclass(frozen=True, kw_only=True)
class QueueSnapshot:
    """A pool's queue at one instant, to place many jobs by without asking the database again.

    Attributes:
        ids: `(rank, id)` of each user's queued jobs, next first.
    """

    flows: Mapping[_FlowKey, Flow]
    users: Mapping[_UserKey, UserFlow]
    lane_clock: Mapping[Lane, float]
    ids: Mapping[_UserKey, Sequence[tuple[int, int]]]

    def has(self, job: Job) -> bool:
        """Whether *job* waited then."""
        ids = self.ids.get((job.lane, job.tenant_id, job.user_id), ())
        return (job.rank, job.id) in ids[bisect_left(ids, (job.rank, job.id)) :][:1]

    def place(self, job: Job, *, newer: int = 0) -> Place:
        """Return where *job* stands, *newer* of its user's jobs that came since before it."""
        key = (job.lane, job.tenant_id, job.user_id)
        rank = bisect_left(self.ids.get(key, ()), (job.rank, job.id)) + newer
        return _place(self, job, rank)


def queue_depths(conn: Connection, pool: str) -> dict[Lane, LaneDepth]:
    """Return what waits in each lane of *pool* that has work."""
    return {
        Lane(row.lane): LaneDepth(
            queued=row.queued, queued_cost_s=row.cost_s, oldest_at=row.oldest_at
        )
        for row in conn.execute(_DEPTHS, {"pool": pool})
    }


def pools_with_work(conn: Connection, routes: Sequence[Route], now: float) -> list[str]:
    """Return the pools in which a job waits that *routes* allow to take, in their order.

    One statement that reads an index entry or two a route: idle workers ask all the time. A pool
    may have nothing to claim all the same: its tenants are at their caps, or it rests.
    """
    if not routes:
        return []
    values: dict[str, object] = {}
    for number, route in enumerate(routes):
        until = now - route.min_wait_s if route.min_wait_s else math.inf  # whatever the clocks say
        values |= {f"pool{number}": route.pool, f"until{number}": until}
    numbers = conn.execute(work_query(len(routes)), values).scalars()
    return [routes[number].pool for number in sorted(numbers)]


@cache
def work_query(count: int) -> TextClause:
    """Return the statement behind `pools_with_work` for *count* routes."""
    parts = (
        # By order, not by bound: without statistics SQLite takes the index of ages only for that.
        f"SELECT {n} WHERE (SELECT head_at FROM flows WHERE pool = :pool{n} AND lane = {lane:d}"  # noqa: S608
        f" AND queued > 0 ORDER BY head_at LIMIT 1) <= :until{n}"
        for n in range(count)
        for lane in Lane
    )
    return text(" UNION ".join(parts))


def position(conn: Connection, job: Job) -> Place | None:
    """Return where *job*, as read on this connection, stands; None unless it is queued."""
    if job.state != JobState.QUEUED:
        return None
    whose = {"pool": job.pool, "lane": job.lane, "tenant": job.tenant_id, "user": job.user_id}
    asked = {**whose, "rank": job.rank, "job": job.id, "most": RANK_MAX}
    rank: int | None = conn.execute(_SOONER, asked).scalar()
    if rank is None:
        return None
    return _place(QueueSnapshot(**_facts(conn, job.pool), ids={}), job, rank)


def queue_snapshot(conn: Connection, pool: str, *, limit: int = RANK_MAX) -> QueueSnapshot:
    """Return the queue of *pool*, with the ids of up to *limit* jobs of each user."""
    facts = _facts(conn, pool)
    keys = {
        key: {"pool": pool, "lane": key[0], "tenant": key[1], "user": key[2]}
        for key in facts["users"]
    }
    ids = {
        key: [(row.rank, row.id) for row in conn.execute(_QUEUED_IDS, {**whose, "most": limit})]
        for key, whose in keys.items()
    }
    return QueueSnapshot(**facts, ids=ids)


def _facts(conn: Connection, pool: str) -> dict[str, Any]:
    return {
        "flows": _flows(conn, pool),
        "users": _users(conn, pool),
        "lane_clock": _lane_clock(conn, pool),
    }


def _flows(conn: Connection, pool: str) -> dict[_FlowKey, Flow]:
    return {
        (Lane(row.lane), row.tenant_id): Flow(
            lane=Lane(row.lane),
            tenant_id=row.tenant_id,
            queued=row.queued,
            queued_cost_s=row.queued_cost_s,
            vtime=row.vtime,
            start=max(row.vtime, row.v),
            weight=row.weight,
        )
        for row in conn.execute(_FLOWS, {"pool": pool})
    }


def _users(conn: Connection, pool: str) -> dict[_UserKey, UserFlow]:
    return {
        (Lane(row.lane), row.tenant_id, row.user_id): UserFlow(
            user_id=row.user_id,
            queued=row.queued,
            queued_cost_s=row.queued_cost_s,
            vtime=row.vtime,
            start=max(row.vtime, row.v),
            weight=row.weight,
        )
        for row in conn.execute(_USERS, {"pool": pool})
    }


def _lane_clock(conn: Connection, pool: str) -> dict[Lane, float]:
    found = {Lane(row.lane): row.lane_v for row in conn.execute(_CLOCKS, {"pool": pool})}
    return {lane: found.get(lane, 0.0) for lane in Lane}


def _place(queue: QueueSnapshot, job: Job, rank: int) -> Place:
    """Foresee when the job that has *rank* among its user's is served."""
    key = (job.lane, job.tenant_id)
    colleagues = [user for other, user in queue.users.items() if _is_colleague(other, job)]
    own_user = queue.users.get((*key, job.user_id)) or UserFlow(
        user_id=job.user_id, **_newcomer(job, colleagues)
    )
    rank = rank_in_flow(own_user, rank, others=colleagues)
    others = [flow for other, flow in queue.flows.items() if other != key]
    rivals = [flow for flow in others if flow.lane == job.lane]
    own = queue.flows.get(key) or Flow(
        lane=job.lane, tenant_id=job.tenant_id, **_newcomer(job, rivals)
    )
    return place(own, rank, others=others, lane_clock=queue.lane_clock)


def _is_colleague(key: _UserKey, job: Job) -> bool:
    return key[:2] == (job.lane, job.tenant_id) and key[2] != job.user_id


def _newcomer(job: Job, rivals: Sequence[Share]) -> dict[str, Any]:
    """Return the share of who had nothing queued: it starts level with the rest."""
    level = min((share.start for share in rivals), default=0.0)
    cost = {"queued": 1, "queued_cost_s": job.est_cost_s}
    return {**cost, "vtime": level, "start": level, "weight": 1.0}
