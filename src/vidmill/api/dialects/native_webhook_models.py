"""Bodies and answers of the webhook routes as schemas."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from vidmill.domain.webhook import NATIVE_TYPES, DeliveryState, EventType
from vidmill.services.webhooks import DESCRIPTION_MAX_CHARS

WEBHOOK_ID = "we_5d1c0e8f2a7b4c6d9e3f0a1b"
DELIVERY_ID = "msg_7c9e6679f8e24f3c8a1b5d2e4f6a8b0c"


def _schema(**facts: Any) -> Any:
    """Facts for the documentation alone: the limits themselves are checked by the service."""
    return Field(json_schema_extra=facts)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


Url = Annotated[str, _schema(format="uri", examples=["https://example.com/hooks/vidmill"])]
Events = Annotated[list[EventType], _schema(minItems=1, uniqueItems=True)]
Description = Annotated[str, _schema(maxLength=DESCRIPTION_MAX_CHARS)]


class WebhookBody(_Body):
    """A receiver to tell."""

    url: Url = Field(description="Where to post; https, on the public internet.")
    events: Events = Field(
        list(NATIVE_TYPES),
        description="What to tell. `t2v.*` come in Vidmill's envelope, `video.*` as OpenAI's.",
    )
    description: Description = Field("", description="Your own words for it.")


class WebhookChanges(_Body):
    """What to change; the rest stays."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: StrictBool | None = Field(None, description="`true` also forgets past failures.")


class ReplayBody(_Body):
    """What to tell again."""

    since: str = Field(
        description="RFC 3339 or Unix seconds, within the last 30 days.",
        examples=["2026-11-20T08:00:00Z"],
    )
    types: list[EventType] | None = Field(
        None, description="Only these; absent = those the endpoint asks for."
    )


class Webhook(_Body):
    """A receiver."""

    id: str = Field(examples=[WEBHOOK_ID])
    url: str | None = Field(description="null = `default`, for the URLs that tasks bring along.")
    events: list[str]
    description: str
    enabled: bool
    disabled_reason: str | None = Field(description="Why it was switched off, if not by you.")
    failing_since: str | None = Field(
        description="Nothing was delivered since; null = all is well."
    )
    rests_until: str | None = Field(description="It asked to be left alone so long.")
    old_secret_until: str | None = Field(description="Until then two signatures are sent.")
    created_at: str
    updated_at: str


class WebhookWithSecret(Webhook):
    """A receiver and the secret that signs what it gets."""

    secret: str = Field(description="Shown now and never again; `whsec_...`.")


class OneWebhook(Webhook):
    """A receiver, looked at."""

    secret: str | None = Field(
        None, description="Of `default` alone, which nobody created and was shown it."
    )


class WebhookList(_Body):
    """Every receiver of the tenant, the newest first."""

    data: list[Webhook]


class DeliveryAttempt(_Body):
    """One call. `error` says why there was no whole answer."""

    attempt: int
    at: str
    status: int | None
    error: str | None
    took_s: float


class WebhookDelivery(_Body):
    """One event for one receiver."""

    id: str = Field(description="The `webhook-id` of every attempt.", examples=[DELIVERY_ID])
    type: EventType
    subject: str = Field(description="The task or batch it is about.")
    state: DeliveryState = Field(description="`dead`: tried as often as it may be.")
    attempts: int
    next_attempt_at: str | None
    created_at: str
    ended_at: str | None
    log: list[DeliveryAttempt] = Field(description="The last 20 attempts, the oldest first.")


class DeliveryPage(_Body):
    """Part of the log."""

    data: list[WebhookDelivery]
    has_more: bool
    next_cursor: str | None


class ReplayAnswer(_Body):
    """How much is told again."""

    replayed: int
    continue_since: str | None = Field(
        description="There was too much for one request: ask again from here. null = that is all."
    )
