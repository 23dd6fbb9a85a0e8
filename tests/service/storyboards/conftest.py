"""A bench, and what can be done with storyboards on it."""

import pytest

from tests.desks import Bench
from vidmill.api.desk import Desk
from vidmill.services.storyboards import Storyboards


@pytest.fixture
def boards(bench: Bench) -> Storyboards:
    return Desk.of(bench.app).storyboards
