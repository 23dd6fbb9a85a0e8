"""A clock that stands and a migrated database, for whoever asks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import FakeClock, make_database
from vidmill.store.session import Database


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def db(tmp_path: Path, clock: FakeClock) -> Iterator[Database]:
    """Tenants 1 to 3, on the handed-in clock."""
    database = make_database(tmp_path, clock, tenant_count=3)
    yield database
    database.close()
