"""Webhook endpoints and their log of deliveries, as typed values."""

from datetime import datetime
from typing import Any

from pydantic import Field

from vidmill.client._models import Wire


class WebhookEndpoint(Wire):
    """A receiver of news.

    Attributes:
        url: None = `default`, which signs for the URLs that tasks bring along.
        secret: `whsec_...`; told by `create` and `rotate_secret`, and by `get("default")`.
        disabled_reason: Why it was switched off, if not by you.
        old_secret_until: Until then two signatures are sent.
    """

    id: str
    url: str | None = None
    events: list[str] = Field(default_factory=list)
    description: str = ""
    enabled: bool = True
    disabled_reason: str | None = None
    failing_since: datetime | None = None
    rests_until: datetime | None = None
    old_secret_until: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    secret: str | None = None


class WebhookDelivery(Wire):
    """One event for one receiver.

    Attributes:
        id: The `webhook-id` of every attempt.
        subject: The task or batch it is about.
        state: `pending`, `delivered` or `dead`: tried as often as it may be.
        log: The last attempts, the oldest first: attempt, at, status, error, took_s.
    """

    id: str
    type: str
    subject: str = ""
    state: str
    attempts: int = 0
    next_attempt_at: datetime | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None
    log: list[dict[str, Any]] = Field(default_factory=list)


class Replay(Wire):
    """How much is told again; `continue_since`: there is more, ask again from there."""

    replayed: int
    continue_since: datetime | None = None


class EndpointList(Wire):
    data: list[WebhookEndpoint]


class DeliveryPage(Wire):
    data: list[WebhookDelivery]
    next_cursor: str | None = None
