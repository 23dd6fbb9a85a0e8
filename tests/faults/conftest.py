from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.shared import Services


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """The servers that all drills share."""
    with ExitStack() as stack:
        yield Services(stack=stack)
