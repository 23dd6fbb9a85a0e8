"""Places foretold, against the claims they foretell, made one by one."""

from collections.abc import Mapping
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.job import LANE_WEIGHT, Lane
from vidmill.domain.scheduling import (
    Flow,
    Place,
    Share,
    Turn,
    UserFlow,
    lane_order,
    place,
    rank_in_flow,
    turns,
)

COST_S = 10.0
PRESENT = 7.5
"""Virtual time; shares that lie behind were away."""
AT_REST = dict.fromkeys(Lane, 0.0)


def make_flow(
    tenant_id: int, queued: int, *, lane: Lane = Lane.STANDARD, vtime: float = 0.0, weight: int = 1
) -> Flow:
    return Flow(
        lane=lane,
        tenant_id=tenant_id,
        queued=queued,
        queued_cost_s=queued * COST_S,
        vtime=vtime,
        start=max(vtime, PRESENT),
        weight=weight,
    )


def make_user(user_id: int, queued: int, *, vtime: float = 0.0, weight: int = 1) -> UserFlow:
    return UserFlow(
        user_id=user_id,
        queued=queued,
        queued_cost_s=queued * COST_S,
        vtime=vtime,
        start=max(vtime, PRESENT),
        weight=weight,
    )


def dues(share: Share) -> list[Fraction]:
    """Return the virtual times at which the claim serves the jobs of *share*, in exact terms."""
    step = Fraction(COST_S) / Fraction(share.weight)
    later = [Fraction(share.start) + rank * step for rank in range(1, share.queued)]
    return [Fraction(share.vtime), *later]


def claims(flows: list[Flow], clock: dict[Lane, float]) -> list[tuple[Lane, int, int]]:
    """Return (lane, tenant, rank) of every job in the order of its claim, in exact arithmetic."""
    due = {(flow.lane, flow.tenant_id): dues(flow) for flow in flows}
    left = {(flow.lane, flow.tenant_id): flow.queued for flow in flows}
    clocks = {lane: Fraction(at) for lane, at in clock.items()}
    order = []
    while any(left.values()):
        lane = min((key[0] for key, n in left.items() if n), key=lambda lane: (clocks[lane], lane))
        waiting = [k for k, n in left.items() if n and k[0] == lane]
        key = min(waiting, key=lambda k: (due[k][-left[k]], k))
        order.append((*key, len(due[key]) - left[key]))
        left[key] -= 1
        clocks[lane] += Fraction(1, LANE_WEIGHT[lane])
    return order


virtual_times = st.integers(0, 8).map(lambda n: n * 2.5)
weights = st.sampled_from([1, 2, 4])
flows_of_a_pool = st.lists(
    st.builds(
        make_flow,
        st.integers(1, 5),
        st.integers(1, 12),
        lane=st.sampled_from(Lane),
        vtime=virtual_times,
        weight=weights,
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda flow: (flow.lane, flow.tenant_id),
)
lane_clocks = st.fixed_dictionaries({lane: st.integers(0, 3).map(float) for lane in Lane})


@given(flows_of_a_pool, lane_clocks)
def test_place_is_the_number_of_claims_before(flows: list[Flow], clock: dict[Lane, float]) -> None:
    order = claims(flows, clock)
    told = {}
    for flow in flows:
        others = [other for other in flows if other is not flow]
        for rank in range(flow.queued):
            found = place(flow, rank, others=others, lane_clock=clock)
            told[flow.lane, flow.tenant_id, rank] = found.ahead
    assert told == {key: number for number, key in enumerate(order)}


users_of_a_tenant = st.lists(
    st.builds(
        make_user, st.integers(1, 5), st.integers(1, 12), vtime=virtual_times, weight=weights
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda user: user.user_id,
)


@given(users_of_a_tenant)
def test_rank_in_the_flow_is_the_number_of_the_tenants_jobs_before(users: list[UserFlow]) -> None:
    order = sorted(
        (due, user.user_id, rank) for user in users for rank, due in enumerate(dues(user))
    )
    told = {}
    for user in users:
        others = [other for other in users if other is not user]
        for rank in range(user.queued):
            told[user.user_id, rank] = rank_in_flow(user, rank, others=others)
    assert told == {(user_id, rank): number for number, (_, user_id, rank) in enumerate(order)}


def test_alone_in_the_pool_only_older_jobs_stand_before() -> None:
    found = place(make_flow(1, 5), 3, others=[], lane_clock=AT_REST)
    assert found == Place(ahead=3, ahead_cost_s=30.0)


def test_small_tenant_does_not_wait_for_a_big_one() -> None:
    found = place(make_flow(2, 1), 0, others=[make_flow(1, 5000)], lane_clock=AT_REST)
    assert found.ahead == 1


def test_batch_job_waits_for_its_share_not_for_the_whole_vip_lane() -> None:
    vip = make_flow(1, 1000, lane=Lane.VIP)
    found = place(make_flow(2, 2, lane=Lane.BATCH), 1, others=[vip], lane_clock=AT_REST)
    assert found.ahead == 1 + 101


def test_lane_served_least_is_tried_first_and_ties_go_to_the_higher_lane() -> None:
    assert lane_order({Lane.VIP: 2.0, Lane.STANDARD: 1.0, Lane.BATCH: 1.0}) == [
        Lane.STANDARD,
        Lane.BATCH,
        Lane.VIP,
    ]


def test_ten_turns_of_a_tenth_and_one_of_a_whole_are_a_tie() -> None:
    tenths = sum([0.1] * 10)
    assert tenths != 1.0
    clock = {Lane.VIP: 9.0, Lane.STANDARD: 1.0, Lane.BATCH: tenths}
    assert lane_order(clock)[0] is Lane.STANDARD


class TestTurns:
    """The standard lane is next, then VIP, then batch."""

    CLOCK: Mapping[Lane, float] = {Lane.VIP: 2.0, Lane.STANDARD: 1.0, Lane.BATCH: 3.0}

    def order(self, **oldest_at: float) -> list[Turn]:
        known = {Lane[name]: at for name, at in oldest_at.items()}
        return turns(self.CLOCK, oldest_at=known, now=10_000.0, batch_age_s=1800.0)

    def test_lane_with_nothing_to_run_has_no_turn(self) -> None:
        assert self.order(STANDARD=9000.0, BATCH=9000.0) == [
            Turn(Lane.STANDARD, Lane.STANDARD),
            Turn(Lane.BATCH, Lane.BATCH),
        ]

    def test_aged_batch_job_takes_the_turn_of_standard_and_standard_pays(self) -> None:
        assert self.order(VIP=9990.0, STANDARD=9000.0, BATCH=8000.0) == [
            Turn(Lane.STANDARD, Lane.BATCH),
            Turn(Lane.STANDARD, Lane.STANDARD),  # should nothing of batch be there after all
            Turn(Lane.VIP, Lane.VIP),
            Turn(Lane.BATCH, Lane.BATCH),
        ]

    def test_batch_job_takes_no_turn_from_one_that_waits_longer(self) -> None:
        assert Turn(Lane.STANDARD, Lane.BATCH) not in self.order(STANDARD=7000.0, BATCH=8000.0)

    def test_batch_job_takes_no_turn_before_its_age(self) -> None:
        assert Turn(Lane.STANDARD, Lane.BATCH) not in self.order(STANDARD=9000.0, BATCH=8200.0)

    def test_aged_batch_job_takes_the_turn_of_an_empty_standard_lane(self) -> None:
        assert self.order(BATCH=8000.0)[0] == Turn(Lane.STANDARD, Lane.BATCH)
