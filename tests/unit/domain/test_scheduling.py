"""Places foretold, against the claims they foretell, made one by one."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.job import LANE_WEIGHT, Lane
from vidmill.domain.scheduling import Flow, Place, lane_order, place

COST_S = 10.0
AT_REST = dict.fromkeys(Lane, 0.0)


def make_flow(
    tenant_id: int, queued: int, *, lane: Lane = Lane.STANDARD, start: float = 0.0, weight: int = 1
) -> Flow:
    return Flow(
        lane=lane,
        tenant_id=tenant_id,
        queued=queued,
        queued_cost_s=queued * COST_S,
        start=start,
        weight=weight,
    )


def claims(flows: list[Flow], clock: dict[Lane, float]) -> list[tuple[Lane, int, int]]:
    """Return (lane, tenant, rank) of every job in the order of its claim, in exact arithmetic."""
    starts = {(flow.lane, flow.tenant_id): Fraction(flow.start) for flow in flows}
    left = {(flow.lane, flow.tenant_id): flow.queued for flow in flows}
    shares = {(f.lane, f.tenant_id): Fraction(COST_S) / Fraction(f.weight) for f in flows}
    turns = {lane: Fraction(at) for lane, at in clock.items()}
    order = []
    while any(left.values()):
        lane = min((key[0] for key, n in left.items() if n), key=lambda lane: (turns[lane], lane))
        key = min((k for k, n in left.items() if n and k[0] == lane), key=lambda k: (starts[k], k))
        queued = next(f.queued for f in flows if (f.lane, f.tenant_id) == key)
        order.append((*key, queued - left[key]))
        left[key] -= 1
        starts[key] += shares[key]
        turns[lane] += Fraction(1, LANE_WEIGHT[lane])
    return order


flows_of_a_pool = st.lists(
    st.builds(
        make_flow,
        st.integers(1, 5),
        st.integers(1, 12),
        lane=st.sampled_from(Lane),
        start=st.integers(0, 8).map(lambda n: n * 2.5),
        weight=st.sampled_from([1, 2, 4]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda flow: (flow.lane, flow.tenant_id),
)
clocks = st.fixed_dictionaries({lane: st.integers(0, 3).map(float) for lane in Lane})


@given(flows_of_a_pool, clocks)
def test_place_is_the_number_of_claims_before(flows: list[Flow], clock: dict[Lane, float]) -> None:
    order = claims(flows, clock)
    told = {}
    for flow in flows:
        others = [other for other in flows if other is not flow]
        for rank in range(flow.queued):
            found = place(flow, rank, others=others, lane_clock=clock)
            told[flow.lane, flow.tenant_id, rank] = found.ahead
    assert told == {key: number for number, key in enumerate(order)}


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
