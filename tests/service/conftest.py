"""A clock that stands and a migrated database; each test runs on SQLite and on PostgreSQL.

A test or module whose subject is one kind of database says so: `pytest.mark.sqlite`,
`pytest.mark.postgresql`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import databases
from tests.builders import FakeClock, make_database
from tests.services import require_postgres
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
