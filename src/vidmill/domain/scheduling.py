"""Who is next: weighted lanes, fair shares inside a lane, and how many stand before a waiting job.

Lanes take turns by a clock each (served / weight), tenants inside a lane by start-time fair queuing
over GPU seconds, users of a tenant likewise. The claim in `store.claim` does it for real, one job
at a time; `rank_in_flow` and `place` foresee it for a whole queue.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidmill.domain.job import LANE_WEIGHT, Lane

DIGITS = 6
"""Clocks are sums of doubles: ten turns of 0.1 and one of 1.0 are a tie."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Queued jobs that compete with other such shares for turns.

    Attributes:
        vtime: Virtual time at which its next job is due; the least is served next.
        start: From when that job is charged: the present, for whoever was away.
        weight: Twice the weight is twice the turns.
    """

    queued: int
    queued_cost_s: float
    vtime: float
    start: float
    weight: float

    @property
    def mean_cost_s(self) -> float:
        return self.queued_cost_s / self.queued

    def due(self, rank: int) -> float:
        """Return the virtual time at which the job that has *rank* before it is due."""
        return self.start + rank * self.mean_cost_s / self.weight if rank else self.vtime


@dataclass(frozen=True, kw_only=True)
class Flow(Share):
    """The queued jobs of one tenant in one lane of a pool."""

    lane: Lane
    tenant_id: int


@dataclass(frozen=True, kw_only=True)
class UserFlow(Share):
    """The part of a flow that one of the tenant's users queued."""

    user_id: int


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
    return sorted(Lane, key=lambda lane: (round(lane_clock[lane], DIGITS), lane))


@dataclass(frozen=True)
class Turn:
    """A turn of the lane `of`, whose clock pays, used by the lane `served`."""

    of: Lane
    served: Lane


def turns(
    lane_clock: Mapping[Lane, float],
    *,
    oldest_at: Mapping[Lane, float],
    now: float,
    batch_age_s: float,
) -> list[Turn]:
    """Return the turns that the next claim tries, in order.

    A batch job that waited longer than *batch_age_s*, and longer than any standard one, takes a
    turn of the standard lane, which thereby pays alone for the promise. *oldest_at* tells since
    when the oldest job waits that may run; a lane that has none is missing.
    """
    aged_at = oldest_at.get(Lane.BATCH, now)
    is_aged = now - aged_at > batch_age_s and aged_at < oldest_at.get(Lane.STANDARD, now)
    aged = [Turn(Lane.STANDARD, Lane.BATCH)] if is_aged else []
    found = []
    for lane in lane_order(lane_clock):
        found += aged if lane is Lane.STANDARD else []
        found += [Turn(lane, lane)] if lane in oldest_at else []
    return found


def rank_in_flow(own: UserFlow, rank: int, *, others: Sequence[UserFlow]) -> int:
    """Foresee how many jobs of the tenant are served before the one with *rank* in *own*.

    Args:
        own: The part of the job's own user.
        rank: Jobs that this user wants sooner.
        others: The parts of the tenant's other users in the same flow.
    """
    due = own.due(rank)
    return rank + sum(
        _served_before(user, due, wins_ties=user.user_id < own.user_id) for user in others
    )


def place(
    own: Flow, rank: int, *, others: Sequence[Flow], lane_clock: Mapping[Lane, float]
) -> Place:
    """Foresee how many jobs are served before the one that has *rank* older ones in *own*.

    Exact as long as nothing arrives and costs are as expected; O(flows), whatever the length of the
    queue.

    Args:
        own: The job's own flow.
        rank: Jobs of the same flow that are served sooner; see `rank_in_flow`.
        others: The pool's other flows that have queued jobs.
        lane_clock: Each lane's clock, in claims divided by weight.
    """
    due = own.due(rank)
    ahead = {own.lane: (rank, rank * own.mean_cost_s)}
    for flow in (flow for flow in others if flow.lane == own.lane):
        count = _served_before(flow, due, wins_ties=flow.tenant_id < own.tenant_id)
        ahead[own.lane] = _plus(ahead[own.lane], flow, count)
    turn = lane_clock[own.lane] + ahead[own.lane][0] / LANE_WEIGHT[own.lane]
    for lane in (lane for lane in Lane if lane != own.lane):
        flows = [flow for flow in others if flow.lane == lane]
        ahead[lane] = _lane_before(lane, flows, turn, own.lane, lane_clock[lane])
    return Place(
        ahead=sum(count for count, _ in ahead.values()),
        ahead_cost_s=sum(cost for _, cost in ahead.values()),
    )


def _served_before(flow: Share, due: float, *, wins_ties: bool) -> int:
    """Return how many jobs of *flow* are due before *due*; a tie goes to the lower id."""
    pace = flow.weight / flow.mean_cost_s
    if _steps_before((due - flow.vtime) * pace, wins_ties=wins_ties) <= 0:
        return 0
    steps = _steps_before((due - flow.start) * pace, wins_ties=wins_ties)
    return _between(1, steps, flow.queued)


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
    exact = round(steps, DIGITS)
    return math.floor(exact) + 1 if wins_ties else math.ceil(exact)


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
