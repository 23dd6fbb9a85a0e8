"""The short form of every fault: nothing is lost, done twice or billed twice."""

import pytest

from tests.faults.catalogue import DRILLS, Drill
from tests.faults.shared import Services

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.xdist_group("faults"),  # one after the other: each measures how long things take
]


@pytest.mark.parametrize("drill", [d for d in DRILLS if d.short], ids=lambda drill: drill.slug)
def test_fault_breaks_no_promise(services: Services, drill: Drill) -> None:
    verdict = drill.play(services, is_short=True)
    assert verdict.wrong == [], verdict
