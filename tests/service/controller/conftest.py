"""A controller, and what records whom it woke and told."""

import pytest

from tests.controllers import make_controller
from tests.recorders import RecordingBus, RecordingTickets
from vidmill.services.controller import Controller
from vidmill.store.session import Database


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
def tickets() -> RecordingTickets:
    return RecordingTickets()


@pytest.fixture
def controller(db: Database, tickets: RecordingTickets, bus: RecordingBus) -> Controller:
    return make_controller(db, tickets, bus)
