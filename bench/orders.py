"""Who orders what, and when: a day's curve, campaigns, and tenants of very different size."""

import itertools
import math
import random
from dataclasses import dataclass, field
from itertools import accumulate

from bench.farm import DAY_S, SHAPES, Farm
from bench.twin import Tenant, Work
from vidmill.domain.job import Lane

NUM_TENANTS = 200
TAIL = 1.1
"""Zipf exponent: the largest of 200 tenants orders a fifth of everything."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is ordered in a day.

    Attributes:
        peak: Orders per second in the busiest minute, over those of the mean one.
        peak_at_s: When in the day that is; the night's bottom is twelve hours away.
        mix: Shares of the lanes.
        campaign: Mean rows of a batch campaign, which arrives as a whole.
    """

    jobs_a_day: int = 100_000
    peak: float = 1.4
    peak_at_s: float = 15 * 3600.0
    mix: dict[Lane, float] = field(
        default_factory=lambda: {Lane.VIP: 0.1, Lane.STANDARD: 0.6, Lane.BATCH: 0.3}
    )
    campaign: float = 40.0

    def share_at(self, at_s: float) -> float:
        """Return the orders at that moment, over the mean; a cosine over the day."""
        return 1 + (self.peak - 1) * math.cos(2 * math.pi * (at_s - self.peak_at_s) / DAY_S)


def make_tenants(count: int = NUM_TENANTS) -> dict[int, Tenant]:
    return {number: Tenant() for number in range(1, count + 1)}


def order_day(
    farm: Farm, demand: Demand, *, pool_of: dict[Lane, str], rng: random.Random, days: float = 1.0
) -> None:
    """Have *farm* receive the orders of some days: a Poisson stream per lane, thinned by hour."""
    numbers = itertools.count(1)
    tenant_ids = list(farm.tenants)
    weights = list(accumulate(1 / rank**TAIL for rank in range(1, len(tenant_ids) + 1)))
    shapes = list(accumulate(shape.share for shape in SHAPES))
    mean_s = {number: shape.render_s for number, shape in enumerate(SHAPES)}

    def submit(lane: Lane, tenant_id: int, shape: int) -> None:
        work = Work(
            id=next(numbers),
            tenant_id=tenant_id,
            lane=lane,
            est_cost_s=mean_s[shape],
            submitted_at=farm.now,
            pool=pool_of[lane],
            shape=shape,
        )
        farm.submit(work)

    def stream(lane: Lane) -> None:
        rows = demand.campaign if lane is Lane.BATCH else 1.0
        per_s = demand.jobs_a_day * demand.mix[lane] / rows / DAY_S

        def arrive() -> None:
            if rng.random() * demand.peak < demand.share_at(farm.now % DAY_S):
                (tenant_id,) = rng.choices(tenant_ids, cum_weights=weights)
                (shape,) = rng.choices(range(len(SHAPES)), cum_weights=shapes)
                count = 1 if rows <= 1 else 1 + int(rng.expovariate(1 / (rows - 1)))
                for _ in range(count):
                    submit(lane, tenant_id, shape)
            again()

        def again() -> None:
            at = farm.now + rng.expovariate(per_s * demand.peak)
            if at < days * DAY_S:
                farm.at(at, arrive)

        again()

    for lane in Lane:
        if demand.mix[lane]:
            stream(lane)
