"""A clock that stands, a migrated database, and an API over one.

Each test runs on SQLite and on PostgreSQL. A test or module whose subject is one kind of database
says so: `pytest.mark.sqlite`, `pytest.mark.postgresql`.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests import databases
from tests.builders import FakeClock, make_database
from tests.desks import KEY, Bench, make_bench
from tests.servers import Server
from tests.services import require_postgres
from vidmill.client import Vidmill
from vidmill.store.session import Database


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    said = [kind for kind in databases.KINDS if metafunc.definition.get_closest_marker(kind)]
    metafunc.fixturenames.append("database_kind")
    metafunc.parametrize("database_kind", said or databases.KINDS, indirect=True)


@pytest.fixture(autouse=True)
def database_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of database that `make_database` makes for this test."""
    kind: str = request.param
    if kind == "postgresql":
        require_postgres()
    databases.choose(kind)
    yield kind
    databases.choose("sqlite")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def db(tmp_path: Path, clock: FakeClock) -> Iterator[Database]:
    """Tenants 1 to 3, on the handed-in clock."""
    database = make_database(tmp_path, clock, tenant_count=3)
    yield database
    database.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A whole API in this process, with a test client."""
    made = make_bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def server(bench: Bench) -> Iterator[Server]:
    """The same on a real port."""
    server = Server(bench)
    yield server
    server.stop()


@pytest.fixture
def vidmill(server: Server) -> Iterator[Vidmill]:
    with Vidmill(server.url, KEY) as client:
        yield client


@pytest.fixture
def named_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the environment names; its own log does not mix with what commands print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder = tmp_path / "server"
    folder.mkdir()
    bench = make_bench(folder)
    server = Server(bench)
    monkeypatch.setenv("VIDMILL_URL", server.url)
    monkeypatch.setenv("VIDMILL_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    yield server
    server.stop()
    bench.close()
    structlog.reset_defaults()
