"""A bench, and what can be done with storyboards on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desks import Bench, make_bench
from vidmill.api.desk import Desk
from vidmill.services.storyboards import Storyboards


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def boards(bench: Bench) -> Storyboards:
    return Desk.of(bench.app).storyboards
