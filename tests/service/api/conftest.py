"""A whole API, behind a test client or a real server."""

import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from tests.desks import Bench, Served
from tests.loras import TINY, make_pair
from vidmill.domain.ports import LoraFiles


@pytest.fixture
def served(bench: Bench) -> Iterator[Served]:
    """The same API behind uvicorn, for streams and half-sent bodies."""
    server = uvicorn.Server(uvicorn.Config(bench.api, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(bench=bench, port=port)
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> LoraFiles:
    """A pair of LoRA files that fits."""
    return make_pair(tmp_path_factory.mktemp("pair"), 1, config=TINY)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> LoraFiles:
    return make_pair(tmp_path_factory.mktemp("pair"), 2, config=TINY)
