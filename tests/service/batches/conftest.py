"""What can be done with batches on a bench."""

import pytest

from tests.desks import Bench
from vidmill.api.desk import Desk
from vidmill.services.batches import Batches


@pytest.fixture
def batches(bench: Bench) -> Batches:
    return Desk.of(bench.app).batches
