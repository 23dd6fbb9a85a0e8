"""Plays days of a GPU farm through the production's policy: `python -m bench.simulate`.

Prints waits by lane, duty and cost of a clip; how fair the queue is to small tenants; and how often
the truth lay inside the interval that was told.
"""

import argparse
import itertools
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.farm import (
    DAY_S,
    MEAN_RENDER_S,
    Autoscaling,
    Farm,
    Hazards,
    Route,
    Tally,
    Watcher,
    WorkerClass,
)
from bench.foresight import Foresight, Verdict
from bench.orders import Demand, make_tenants, order_day
from bench.twin import Work
from vidmill.domain.eta import Kind
from vidmill.domain.job import Lane

ONE_POOL = dict.fromkeys(Lane, "main")
POOL_PER_LANE = {Lane.VIP: "vip", Lane.STANDARD: "standard", Lane.BATCH: "batch"}
SHARES = {"vip": 0.14, "standard": 0.56, "batch": 0.30}
"""Of the GPUs, where every lane has a pool: the lanes' shares of orders, VIP with some to spare."""

HORIZONS_S = (60.0, 600.0, 3600.0)
"""Where the report tells predictions apart, by what was told as p50."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    classes: tuple[WorkerClass, ...]
    pool_of: dict[Lane, str]
    demand: Demand
    autoscaling: Autoscaling | None = None

    @property
    def num_gpus(self) -> int:
        return sum(kind.count for kind in self.classes)


@dataclass(frozen=True, kw_only=True)
class Played:
    scenario: Scenario
    tally: Tally
    verdicts: list[Verdict]
    took_s: float


def one_pool(gpus: int) -> tuple[WorkerClass, ...]:
    return (WorkerClass(count=gpus, routes=(Route(pool="main"),)),)


def pools(gpus: int, *, has_overflow: bool) -> tuple[WorkerClass, ...]:
    """Return a class per lane; with overflow the routes of docs/operate.md."""
    own = {name: (Route(pool=name),) for name in SHARES}
    routes = {
        "vip": (Route(pool="vip"), Route(pool="standard", min_wait_s=60)),
        "standard": (Route(pool="standard"), Route(pool="vip", min_wait_s=20), Route(pool="batch")),
        "batch": (Route(pool="batch"), Route(pool="standard", min_wait_s=60)),
    }
    return tuple(
        WorkerClass(count=round(gpus * share), routes=(routes if has_overflow else own)[name])
        for name, share in SHARES.items()
    )


def scenarios(gpus: int, jobs_a_day: int) -> list[Scenario]:
    day = Demand(jobs_a_day=jobs_a_day)
    calm = Demand(jobs_a_day=jobs_a_day, peak=1.2)
    half = Demand(jobs_a_day=jobs_a_day // 2, peak=1.95)
    one, apart = one_pool(gpus), pools(gpus, has_overflow=False)
    over, each = pools(gpus, has_overflow=True), POOL_PER_LANE
    return [
        Scenario(name="one pool, peak 1.2", classes=one, pool_of=ONE_POOL, demand=calm),
        Scenario(name="one pool, peak 1.4", classes=one, pool_of=ONE_POOL, demand=day),
        Scenario(name="pool per lane, no overflow", classes=apart, pool_of=each, demand=day),
        Scenario(name="pool per lane, overflow", classes=over, pool_of=each, demand=day),
        Scenario(name="half the orders, all GPUs on", classes=one, pool_of=ONE_POOL, demand=half),
        Scenario(
            name="half the orders, to zero at night",
            classes=one,
            pool_of=ONE_POOL,
            demand=half,
            autoscaling=Autoscaling(),
        ),
    ]


def play(scenario: Scenario, *, seed: int) -> Played:
    """Play a day, and the next morning until nothing is left."""
    rng, began = random.Random(seed), time.perf_counter()
    foresight = Foresight(every_s=30.0, rng=random.Random(seed + 1))
    farm = Farm(
        scenario.classes,
        tenants=make_tenants(),
        rng=rng,
        autoscaling=scenario.autoscaling,
        watcher=foresight,
    )
    order_day(farm, scenario.demand, pool_of=scenario.pool_of, rng=rng)
    foresight.watch(farm, until=DAY_S)
    farm.play(until=DAY_S)
    day = Tally(busy_s=farm.tally.busy_s, paid_s=farm.paid_s(), done=farm.tally.done)
    farm.play(until=1.5 * DAY_S)
    day.waits, day.deaths, day.failures = farm.tally.waits, farm.tally.deaths, farm.tally.failures
    assert not farm.outstanding, f"{farm.outstanding} jobs were never done"
    took_s = time.perf_counter() - began
    return Played(scenario=scenario, tally=day, verdicts=foresight.verdicts, took_s=took_s)


def fairness(*, seed: int, gpus: int = 10, tenants: int = 50, jobs: int = 10_000) -> None:
    """Print what 49 small tenants get beside one that ordered half of everything before them."""
    rng, watcher, service_s = random.Random(seed), _Served(), 60.0
    hazards = Hazards(failures=0.0, worker_life_s=1e12)
    farm = Farm(
        one_pool(gpus), tenants=make_tenants(tenants), rng=rng, hazards=hazards, watcher=watcher
    )
    for number in range(jobs):
        is_big = number < jobs // 2
        work = Work(
            id=number + 1,
            tenant_id=1 if is_big else 2 + number % (tenants - 1),
            lane=Lane(number % len(Lane)),
            est_cost_s=service_s,
            submitted_at=0.0 if is_big else 1.0,
            pool="main",
            shape=0,
        )
        farm.at(work.submitted_at, lambda work=work: farm.submit(work))  # type: ignore[misc]
    span_s = 7200.0
    farm.play(until=span_s)
    served = [watcher.by_tenant[number] for number in range(1, tenants + 1)]
    jain = sum(served) ** 2 / (tenants * sum(n * n for n in served))
    firsts = sorted(watcher.first_at[number] for number in range(2, tenants + 1))
    lanes = [watcher.by_lane[lane] / sum(served) for lane in Lane]
    print(f"\nfairness: {jobs} jobs, {gpus} GPUs, {tenants} tenants, one owns half and came first")
    print(f"  Jain's index over {span_s / 3600:.1f} h: {jain:.3f}")
    print(f"  starts of a tenant: {min(served)} to {max(served)}")
    print(f"  first start of a small tenant: p50 {_at(firsts, 0.5):.0f} s, last {firsts[-1]:.0f} s")
    print(f"  (bound: 5 rounds, {5 * service_s / gpus * tenants:.0f} s)")
    shares = ", ".join(f"{share:.3f}" for share in lanes)
    print(f"  lanes' shares of starts: {shares}; by weight: 0.901, 0.090, 0.009")


class _Served(Watcher):
    """Counts starts."""

    def __init__(self) -> None:
        self.by_tenant: dict[int, int] = defaultdict(int)
        self.by_lane: dict[Lane, int] = defaultdict(int)
        self.first_at: dict[int, float] = {}

    def started(self, work: Work, now: float) -> None:
        self.by_tenant[work.tenant_id] += 1
        self.by_lane[work.lane] += 1
        self.first_at.setdefault(work.tenant_id, now)


def print_played(played: Played, *, usd_per_gpu_h: float) -> None:
    scenario, tally = played.scenario, played.tally
    duty = tally.busy_s / tally.paid_s
    usd = tally.paid_s / 3600 * usd_per_gpu_h / tally.done
    print(f"\n{scenario.name}: {scenario.num_gpus} GPUs, {scenario.demand.jobs_a_day} jobs a day")
    print(
        f"  done {tally.done} in the day, {tally.failures} runs failed, {tally.deaths} workers died"
    )
    print(f"  duty {duty:.3f}, {tally.paid_s / 3600:.0f} GPU hours, {usd:.3f} USD a clip")
    print("  wait, s          jobs      p50      p95      p99      max")
    for lane, waits in tally.waits.items():
        cells = (*(_at(sorted(waits), share) for share in (0.5, 0.95, 0.99)), max(waits))
        print(f"  {lane.name.lower():12}{len(waits):9}" + "".join(f"{cell:9.1f}" for cell in cells))
    print(f"  (played in {played.took_s:.1f} s)")


def print_coverage(title: str, verdicts: Sequence[Verdict]) -> None:
    """Print how often the truth lay inside, and how wide the intervals were."""
    print(f"\n{title}")
    print("  kind     of                  predictions   inside   too early   late   width/p50")
    for kind in Kind:
        of_kind = [v for v in verdicts if v.told.guess.group.kind == kind]
        _print_cut(kind, "all", of_kind, lambda _: True)
        for lane in Lane:
            _print_cut(kind, lane.name.lower(), of_kind, lambda v, lane=lane: v.told.lane == lane)  # type: ignore[misc]
        edges = (0.0, *HORIZONS_S, float("inf"))
        for low, high in itertools.pairwise(edges):
            name = f"in {low:.0f} to {high:.0f} s"
            _print_cut(
                kind,
                name,
                of_kind,
                lambda v, low=low, high=high: low <= v.told.interval.p50 < high,  # type: ignore[misc]
            )


def _print_cut(
    kind: Kind, name: str, verdicts: Sequence[Verdict], wanted: Callable[[Verdict], bool]
) -> None:
    cut = [verdict for verdict in verdicts if wanted(verdict)]
    if not cut:
        return
    hits = sum(verdict.is_hit for verdict in cut) / len(cut)
    early = sum(verdict.actual_s < verdict.told.interval.p10 for verdict in cut) / len(cut)
    widths = sorted(
        (v.told.interval.p90 - v.told.interval.p10) / max(1.0, v.told.interval.p50) for v in cut
    )
    late = 1 - hits - early
    print(
        f"  {kind.value:9}{name:20}{len(cut):11}{hits:9.3f}{early:12.3f}{late:7.3f}"
        f"{_at(widths, 0.5):12.2f}"
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=300)
    parser.add_argument("--jobs-a-day", type=int, default=100_000)
    parser.add_argument("--usd-per-gpu-hour", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args(arguments)
    busy = told.jobs_a_day * MEAN_RENDER_S / DAY_S
    print(
        f"{told.jobs_a_day} jobs a day of {MEAN_RENDER_S:.0f} s keep {busy:.0f} GPUs busy (Little);"
    )
    print(f"of {told.gpus} that is {busy / told.gpus:.3f}")
    verdicts: list[Verdict] = []
    for scenario in scenarios(told.gpus, told.jobs_a_day):
        played = play(scenario, seed=told.seed)
        print_played(played, usd_per_gpu_h=told.usd_per_gpu_hour)
        print_coverage("  intervals told:", played.verdicts)
        verdicts += played.verdicts
    fairness(seed=told.seed)
    print_coverage("intervals told, all scenarios", verdicts)


if __name__ == "__main__":
    main(sys.argv[1:])
