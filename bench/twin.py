"""The claim of `store.claim`, in memory: the same choices, fast enough to play a day in seconds.

A test lets both choose from the same random queues and compares every choice.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from vidmill.domain.job import LANE_WEIGHT, Lane
from vidmill.domain.scheduling import Flow, Place, place, turns


@dataclass(slots=True, kw_only=True)
class Work:
    """A job, as far as the claim looks at it. `shape` says how long it takes."""

    id: int
    tenant_id: int
    lane: Lane
    est_cost_s: float
    submitted_at: float
    user_id: int = 0
    rank: int = 0
    pool: str = ""
    shape: int = 0
    attempt: int = 0
    started_at: float = 0.0
    cost_s: float = 0.0
    total_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Tenant:
    weight: float = 1.0
    cap_running: int = 1_000_000
    running: int = 0
    user_weights: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class UserFlow:
    """What one user has queued: a heap by rank, then age."""

    vtime: float = 0.0
    heap: list[tuple[int, int, Work]] = field(default_factory=list)


@dataclass(slots=True)
class TenantFlow:
    vtime: float = 0.0
    user_v: float = 0.0
    queued: int = 0
    queued_cost_s: float = 0.0
    head_at: float = 0.0
    users: dict[int, UserFlow] = field(default_factory=dict)

    def look(self) -> None:
        """Keep when the oldest of its users' next jobs was submitted; of a flow not empty."""
        self.head_at = min(
            user.heap[0][2].submitted_at for user in self.users.values() if user.heap
        )


class PoolTwin:
    """The queue of one pool. Tenants are shared between pools, as their caps are."""

    def __init__(self, tenants: Mapping[int, Tenant], *, batch_age_s: float = 1800.0) -> None:
        self._tenants = tenants
        self._batch_age_s = batch_age_s
        self.flows: dict[Lane, dict[int, TenantFlow]] = {lane: {} for lane in Lane}
        self._waiting: dict[Lane, dict[int, TenantFlow]] = {lane: {} for lane in Lane}
        self.lane_clock = dict.fromkeys(Lane, 0.0)
        self._v = dict.fromkeys(Lane, 0.0)

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def add(self, work: Work) -> None:
        flow = self.flows[work.lane].setdefault(work.tenant_id, TenantFlow())
        user = flow.users.setdefault(work.user_id, UserFlow())
        heapq.heappush(user.heap, (work.rank, work.id, work))
        flow.queued += 1
        flow.queued_cost_s += work.est_cost_s
        flow.look()
        self._waiting[work.lane][work.tenant_id] = flow

    def claim(self, now: float) -> Work | None:
        """Take the job whose turn it is; None when nothing may run."""
        oldest_at = {lane: self._runnable_since(lane) for lane in Lane if self._waiting[lane]}
        known = {lane: at for lane, at in oldest_at.items() if at is not None}
        for turn in turns(self.lane_clock, oldest_at=known, now=now, batch_age_s=self._batch_age_s):
            tenant_id = self._next_tenant(turn.served)
            if tenant_id is not None:
                return self._take(turn.served, tenant_id, turn_of=turn.of)
        return None

    def settle(self, work: Work, cost_s: float) -> None:
        """Correct the tenant's and the user's clock by what the run really cost."""
        tenant = self._tenants[work.tenant_id]
        tenant.running -= 1
        flow = self.flows[work.lane][work.tenant_id]
        flow.vtime += (cost_s - work.est_cost_s) / tenant.weight
        weight = tenant.user_weights.get(work.user_id, 1.0)
        flow.users[work.user_id].vtime += (cost_s - work.est_cost_s) / weight

    def oldest_at(self, lane: Lane) -> float:
        """Return when the oldest head of *lane* was submitted; infinity when nothing waits."""
        return min((flow.head_at for flow in self._waiting[lane].values()), default=float("inf"))

    def queued(self, lane: Lane) -> int:
        return sum(flow.queued for flow in self._waiting[lane].values())

    def queued_cost_s(self) -> float:
        return sum(flow.queued_cost_s for lane in Lane for flow in self._waiting[lane].values())

    def waiting(self, lane: Lane) -> list[Work]:
        return [
            entry[2]
            for flow in self._waiting[lane].values()
            for user in flow.users.values()
            for entry in user.heap
        ]

    def place(self, work: Work, flows: list[Flow]) -> Place:
        """Foresee when *work* is served, *flows* being what `foreseen_flows` returned."""
        own = next(f for f in flows if (f.lane, f.tenant_id) == (work.lane, work.tenant_id))
        heap = self._waiting[work.lane][work.tenant_id].users[work.user_id].heap
        rank = sum(entry[:2] < (work.rank, work.id) for entry in heap)
        others = [flow for flow in flows if flow is not own]
        return place(own, rank, others=others, lane_clock=self.lane_clock)

    def foreseen_flows(self) -> list[Flow]:
        return [
            Flow(
                lane=lane,
                tenant_id=tenant_id,
                queued=flow.queued,
                queued_cost_s=flow.queued_cost_s,
                vtime=flow.vtime,
                start=max(flow.vtime, self._v[lane]),
                weight=self._tenants[tenant_id].weight,
            )
            for lane in Lane
            for tenant_id, flow in self._waiting[lane].items()
        ]

    def _runnable_since(self, lane: Lane) -> float | None:
        tenants, flows = self._tenants, self._waiting[lane].items()
        heads = [f.head_at for n, f in flows if tenants[n].running < tenants[n].cap_running]
        return min(heads, default=None)

    def _next_tenant(self, lane: Lane) -> int | None:
        tenants = self._tenants
        may_run = (
            (flow.vtime, tenant_id)
            for tenant_id, flow in self._waiting[lane].items()
            if tenants[tenant_id].running < tenants[tenant_id].cap_running
        )
        found = min(may_run, default=None)
        return None if found is None else found[1]

    def _take(self, lane: Lane, tenant_id: int, *, turn_of: Lane) -> Work:
        flow, tenant = self._waiting[lane][tenant_id], self._tenants[tenant_id]
        user_id = min((u.vtime, name) for name, u in flow.users.items() if u.heap)[1]
        user = flow.users[user_id]
        work = heapq.heappop(user.heap)[2]
        flow.queued -= 1
        flow.queued_cost_s -= work.est_cost_s
        if not flow.queued:
            flow.queued_cost_s = 0.0
            del self._waiting[lane][tenant_id]
        else:
            flow.look()
        work.attempt += 1
        tenant.running += 1
        start = max(flow.vtime, self._v[lane])
        flow.vtime = start + work.est_cost_s / tenant.weight
        self._v[lane] = start
        user_start = max(user.vtime, flow.user_v)
        user.vtime = user_start + work.est_cost_s / tenant.user_weights.get(user_id, 1.0)
        flow.user_v = user_start
        self._move_clock(turn_of)
        return work

    def _move_clock(self, lane: Lane) -> None:
        at = self.lane_clock[lane]
        for other in Lane:
            self.lane_clock[other] = max(self.lane_clock[other], at)
        self.lane_clock[lane] = at + 1.0 / LANE_WEIGHT[lane]
