"""All at random and for as long as one likes: workers killed and frozen, the broker wiped."""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.faults.brokers import WIPES
from tests.faults.kills import OVER_S, freeze
from tests.faults.shared import Services
from tests.faults.stage import Stage, open_stage, pause
from tests.faults.verdict import Verdict

SEED = 20
WARM_SHARE = 0.3
"""Memory is compared from here on: until then caches and connections grow to their size."""


def _kill(stage: Stage, rng: random.Random) -> None:
    rng.choice(stage.staff()[1:]).kill()  # the first one's memory is watched
    stage.hire()


def _freeze(stage: Stage, rng: random.Random) -> None:
    freeze([rng.choice(stage.staff()[1:])], stage.settings.lease_s + stage.settings.sweep_s)


def _wipe(stage: Stage, _rng: random.Random) -> None:
    WIPES["redis"](stage)


TROUBLES: Mapping[str, Callable[[Stage, random.Random], None]] = {
    "workers killed": _kill,
    "workers frozen": _freeze,
    "brokers wiped": _wipe,
}


def soak(services: Services, *, seconds: float, rate_per_s: float) -> Verdict:
    verdict, rng = Verdict(), random.Random(SEED)
    counts = dict.fromkeys(TROUBLES, 0)
    with open_stage(services) as stage:
        stage.work_s = 0.05
        stage.serve(2)
        stage.hire(5)
        load = stage.load(rate_per_s=rate_per_s)
        began, before = time.monotonic(), dict[int, int]()
        while (elapsed := time.monotonic() - began) < seconds:
            if not before and elapsed > WARM_SHARE * seconds:
                before = memory_of(stage)
            name = rng.choice(list(TROUBLES))
            TROUBLES[name](stage, rng)
            counts[name] += 1
            pause(rng.uniform(0.5, 2.0))
        after = memory_of(stage)
        load.stop()
        verdict.require(stage.wait_over(OVER_S), "not all jobs ended")
        troubles = ", ".join(f"{count} {name}" for name, count in counts.items())
        verdict.done = f"{seconds:.0f} s at {rate_per_s:g} submits/s: {troubles}"
        growth = max(after[pid] / before[pid] - 1 for pid in before)
        verdict.hold(
            "memory of the fastest growing process grew by",
            100 * growth,
            at_most=limit_of(seconds),
            unit="%",
        )
        verdict.expect_all_succeeded(stage)
        verdict.judge(stage)
    return verdict


def limit_of(seconds: float) -> float:
    """Return the growth allowed, percent: 5, but a short run has hardly warmed up."""
    return 5.0 if seconds >= 600 else 15.0


def memory_of(stage: Stage) -> dict[int, int]:
    """Return the resident pages of both replicas and of the worker nobody kills."""
    pids = [*(replica.process.pid for replica in stage.replicas), stage.staff()[0].process.pid]
    return {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids}
