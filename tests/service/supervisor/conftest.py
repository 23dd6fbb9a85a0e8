"""One worker that all gentle tests of a module put work into."""

from collections.abc import Iterator

import pytest

from tests.workers import TROUBLED, Bench, Worker, open_bench


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Worker]]:
    """A bench and its worker, with a generous time limit."""
    with open_bench(tmp_path_factory.mktemp("shared")) as bench:
        worker = Worker(bench, TROUBLED)
        worker.wait_state("ready")
        yield bench, worker
        assert worker.stop() == 0


@pytest.fixture
def bench(shared: tuple[Bench, Worker]) -> Bench:
    return shared[0]


@pytest.fixture
def worker(shared: tuple[Bench, Worker]) -> Worker:
    shared[1].wait_state("ready")
    return shared[1]
