"""Tickets and events between processes, one entry per URL scheme of the broker."""

from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from vidmill.domain.ports import EventBus, TicketSource
from vidmill.plugins import load_plugin

_CELERY = "vidmill.queueing.celery_tickets:CeleryTickets"
_REDIS = "vidmill.queueing.redis_bus:RedisBus"

TICKET_SOURCES: Mapping[str, str] = {
    "local": "vidmill.queueing.local:LocalTickets",
    "redis": _CELERY,
    "rediss": _CELERY,
    "amqp": _CELERY,
    "amqps": _CELERY,
    "confluentkafka": _CELERY,
}
EVENT_BUSES: Mapping[str, str] = {
    "local": "vidmill.queueing.local:LocalBus",
    "redis": _REDIS,
    "rediss": _REDIS,
    "postgresql": "vidmill.queueing.postgres_bus:PostgresBus",
}


def open_tickets(url: str) -> TicketSource:
    """Open the ticket source at *url*, e.g. `local:///var/lib/vidmill/run`.

    `?prefix=` names the queues apart where several installations share a broker.
    """
    return cast("TicketSource", load_plugin(TICKET_SOURCES, urlsplit(url).scheme)(url))


def open_bus(url: str) -> EventBus:
    """Open the event bus at *url*, e.g. `local:///var/lib/vidmill/run`.

    `?prefix=` names the channels apart where several installations share a server.
    """
    return cast("EventBus", load_plugin(EVENT_BUSES, urlsplit(url).scheme)(url))
