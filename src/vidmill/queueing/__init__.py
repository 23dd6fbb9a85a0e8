"""Tickets and events between processes, one entry per URL scheme of the broker."""

from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from vidmill.domain.ports import EventBus, TicketSource
from vidmill.plugins import load_plugin

TICKET_SOURCES: Mapping[str, str] = {"local": "vidmill.queueing.local:LocalTickets"}
EVENT_BUSES: Mapping[str, str] = {"local": "vidmill.queueing.local:LocalBus"}


def open_tickets(url: str) -> TicketSource:
    """Open the ticket source at *url*, e.g. `local:///var/lib/vidmill/run`."""
    return cast("TicketSource", load_plugin(TICKET_SOURCES, urlsplit(url).scheme)(url))


def open_bus(url: str) -> EventBus:
    """Open the event bus at *url*, e.g. `local:///var/lib/vidmill/run`."""
    return cast("EventBus", load_plugin(EVENT_BUSES, urlsplit(url).scheme)(url))
