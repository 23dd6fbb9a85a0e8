"""How long the queue is, and where a job stands in it. Reads only, none grows with the queue."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from vidmill.domain.clip import ClipSpec
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.scheduling import Flow, Place, place

RANK_MAX = 10_000
"""Older jobs of a flow that are counted; whoever stands further back is told this much."""

_DEPTHS = text("""
    SELECT lane, sum(queued) AS queued, sum(queued_cost_s) AS cost_s, min(head_at) AS oldest_at
      FROM flows WHERE pool = :pool AND queued > 0 GROUP BY lane""")
_FLOWS = text("""
    SELECT f.lane, f.tenant_id, f.queued, f.queued_cost_s, f.vtime, coalesce(c.v, 0) AS v, t.weight
      FROM flows f JOIN tenants t ON t.id = f.tenant_id
      LEFT JOIN vclock c ON c.pool = f.pool AND c.lane = f.lane
     WHERE f.pool = :pool AND f.queued > 0""")
_CLOCKS = text("SELECT lane, lane_v FROM vclock WHERE pool = :pool")
_RANK = text("""
    SELECT count(*) FROM (
        SELECT 1 FROM jobs
         WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND state = 'queued' AND id <
         :job LIMIT :most) AS older""")
_QUEUED_IDS = text("""
    SELECT id FROM jobs
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND state = 'queued'
     ORDER BY id LIMIT :most""")
_LEARNT = text("""
    SELECT mean_s FROM cost_stats
     WHERE profile = :profile AND width_px = :width_px AND height_px = :height_px
       AND num_frames = :num_frames AND steps = :steps""")

_FlowKey = tuple[Lane, int]


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
        ids: Queued jobs by flow, oldest first.
    """

    flows: Mapping[_FlowKey, Flow]
    lane_clock: Mapping[Lane, float]
    ids: Mapping[_FlowKey, Sequence[int]]

    def place(self, job: Job) -> Place | None:
        """Return where *job* stood, or None if it did not wait then."""
        key = (job.lane, job.tenant_id)
        ids = self.ids.get(key, ())
        rank = bisect_left(ids, job.id)
        if rank == len(ids) or ids[rank] != job.id:
            return None
        return _place(self.flows, self.lane_clock, key=key, rank=rank)


def queue_depths(conn: Connection, pool: str) -> dict[Lane, LaneDepth]:
    """Return what waits in each lane of *pool* that has work."""
    return {
        Lane(row.lane): LaneDepth(
            queued=row.queued, queued_cost_s=row.cost_s, oldest_at=row.oldest_at
        )
        for row in conn.execute(_DEPTHS, {"pool": pool})
    }


def position(conn: Connection, job: Job) -> Place | None:
    """Return where *job*, as read on this connection, stands; None unless it is queued."""
    flows = _flows(conn, job.pool)
    key = (job.lane, job.tenant_id)
    if job.state != JobState.QUEUED or key not in flows:
        return None
    of_flow = {"pool": job.pool, "lane": job.lane, "tenant": job.tenant_id}
    rank = conn.execute(_RANK, {**of_flow, "job": job.id, "most": RANK_MAX}).scalar_one()
    return _place(flows, _lane_clock(conn, job.pool), key=key, rank=rank)


def queue_snapshot(conn: Connection, pool: str, *, limit: int = RANK_MAX) -> QueueSnapshot:
    """Return the queue of *pool*, with the ids of up to *limit* jobs of each flow."""
    flows = _flows(conn, pool)
    keys = {flow: {"pool": pool, "lane": flow[0], "tenant": flow[1]} for flow in flows}
    ids = {
        flow: conn.execute(_QUEUED_IDS, {**key, "most": limit}).scalars().all()
        for flow, key in keys.items()
    }
    return QueueSnapshot(flows=flows, lane_clock=_lane_clock(conn, pool), ids=ids)


def expected_cost_s(conn: Connection, spec: ClipSpec) -> float | None:
    """Return the learnt GPU seconds of a clip of this size and length; None = never made here."""
    values = {"profile": spec.profile, "num_frames": spec.num_frames, "steps": spec.steps}
    values |= {"width_px": spec.native.width_px, "height_px": spec.native.height_px}
    mean_s: float | None = conn.execute(_LEARNT, values).scalar()
    return mean_s


def _flows(conn: Connection, pool: str) -> dict[_FlowKey, Flow]:
    return {
        (Lane(row.lane), row.tenant_id): Flow(
            lane=Lane(row.lane),
            tenant_id=row.tenant_id,
            queued=row.queued,
            queued_cost_s=row.queued_cost_s,
            start=max(row.vtime, row.v),
            weight=row.weight,
        )
        for row in conn.execute(_FLOWS, {"pool": pool})
    }


def _lane_clock(conn: Connection, pool: str) -> dict[Lane, float]:
    found = {Lane(row.lane): row.lane_v for row in conn.execute(_CLOCKS, {"pool": pool})}
    return {lane: found.get(lane, 0.0) for lane in Lane}


def _place(
    flows: Mapping[_FlowKey, Flow],
    lane_clock: Mapping[Lane, float],
    *,
    key: _FlowKey,
    rank: int,
) -> Place:
    others = [flow for other, flow in flows.items() if other != key]
    return place(flows[key], rank, others=others, lane_clock=lane_clock)
