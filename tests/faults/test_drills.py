"""The short form of every fault: nothing is lost, done twice or billed twice."""

from typing import Any

import pytest

from tests.faults.catalogue import DRILLS, Drill
from tests.faults.shared import Services

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.xdist_group("faults"),  # one after the other: each measures how long things take
]


VARIANTS = {
    "1-workers-killed-RabbitMQ",
    "1-workers-killed-no-broker-SQLite",
    "3-supervisors-frozen-children-not",
    "13-cancels-racing-completions",
    "14-one-tenant-owns-half",
}
"""Faults that others here come near; `make faults` has them all."""


def drills() -> list[Any]:
    return [
        pytest.param(
            drill, id=drill.slug, marks=[pytest.mark.long] if drill.slug in VARIANTS else []
        )
        for drill in DRILLS
        if drill.short
    ]


@pytest.mark.parametrize("drill", drills())
def test_fault_breaks_no_promise(services: Services, drill: Drill) -> None:
    verdict = drill.play(services, is_short=True)
    assert verdict.wrong == [], verdict
