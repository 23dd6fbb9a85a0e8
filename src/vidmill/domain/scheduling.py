"""Who is next: weighted lanes, fair shares inside a lane, and how many stand before a waiting job.

Lanes take turns by a clock each (served / weight), tenants inside a lane by start-time fair queuing
over GPU seconds. The claim in `store.claim` does it for real, one job at a time; `place` foresees
it for a whole queue.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidmill.domain.job import LANE_WEIGHT, Lane


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The queued jobs of one tenant in one lane of a pool.

    Attributes:
        start: Virtual time at which its next job is due; the least is served next.
        weight: Of the tenant; twice the weight is twice the share.
    """

    lane: Lane
    tenant_id: int
    queued: int
    queued_cost_s: float
    start: float
    weight: float

    @property
    def mean_cost_s(self) -> float:
        return self.queued_cost_s / self.queued


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a queued job stands, on the queue as it is now.

    Attributes:
        ahead: Jobs that will be claimed before it; 0 = next.
        ahead_cost_s: GPU seconds those are expected to take.
    """

    ahead: int
    ahead_cost_s: float


def lane_order(lane_clock: Mapping[Lane, float]) -> list[Lane]:
    """Return the lanes in the order in which the next claim tries them."""
    return sorted(Lane, key=lambda lane: (lane_clock[lane], lane))


def place(
    own: Flow, rank: int, *, others: Sequence[Flow], lane_clock: Mapping[Lane, float]
) -> Place:
    """Foresee how many jobs are served before the one that has *rank* older ones in *own*.

    Exact as long as nothing arrives and costs are as expected; O(flows), whatever the length of the
    queue.

    Args:
        own: The job's own flow.
        rank: Jobs of the same flow that are older.
        others: The pool's other flows that have queued jobs.
        lane_clock: Each lane's clock, in claims divided by weight.
    """
    due = own.start + rank * own.mean_cost_s / own.weight
    ahead = {own.lane: (rank, rank * own.mean_cost_s)}
    for flow in (flow for flow in others if flow.lane == own.lane):
        ahead[own.lane] = _plus(ahead[own.lane], flow, _served_before(flow, due, own.tenant_id))
    turn = lane_clock[own.lane] + ahead[own.lane][0] / LANE_WEIGHT[own.lane]
    for lane in (lane for lane in Lane if lane != own.lane):
        flows = [flow for flow in others if flow.lane == lane]
        ahead[lane] = _lane_before(lane, flows, turn, own.lane, lane_clock[lane])
    return Place(
        ahead=sum(count for count, _ in ahead.values()),
        ahead_cost_s=sum(cost for _, cost in ahead.values()),
    )


def _served_before(flow: Flow, due: float, rival_id: int) -> int:
    """Return how many jobs of *flow* start before *due*; a tie goes to the lower tenant."""
    steps = (due - flow.start) * flow.weight / flow.mean_cost_s
    return _between(0, _steps_before(steps, wins_ties=flow.tenant_id < rival_id), flow.queued)


def _lane_before(
    lane: Lane, flows: Sequence[Flow], turn: float, own_lane: Lane, clock: float
) -> tuple[int, float]:
    """Return how many jobs of another lane are served before *turn*, and their cost."""
    queued = sum(flow.queued for flow in flows)
    if not queued:
        return 0, 0.0
    steps = (turn - clock) * LANE_WEIGHT[lane]
    count = _between(0, _steps_before(steps, wins_ties=lane < own_lane), queued)
    return count, count * sum(flow.queued_cost_s for flow in flows) / queued


def _plus(so_far: tuple[int, float], flow: Flow, count: int) -> tuple[int, float]:
    return so_far[0] + count, so_far[1] + count * flow.mean_cost_s


def _steps_before(steps: float, *, wins_ties: bool) -> int:
    exact = round(steps, 6)  # sums of doubles: 3.0000000001 is 3
    return math.floor(exact) + 1 if wins_ties else math.ceil(exact)


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
