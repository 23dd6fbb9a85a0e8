"""Webhooks: what is told, what an attempt to tell it came to, and when it is tried again."""

import base64
from dataclasses import dataclass
from enum import StrEnum


class EventType(StrEnum):
    """What a receiver can be told. The type decides the shape of the body, too."""

    TASK_COMPLETED = "t2v.task.completed"
    TASK_FAILED = "t2v.task.failed"
    TASK_CANCELLED = "t2v.task.cancelled"
    BATCH_COMPLETED = "t2v.batch.completed"
    STORYBOARD_COMPLETED = "t2v.storyboard.completed"
    STORYBOARD_FAILED = "t2v.storyboard.failed"
    VIDEO_COMPLETED = "video.completed"  # the same news as OpenAI's API tells it
    VIDEO_FAILED = "video.failed"
    TEST = "webhook.test"


NATIVE_TYPES = (
    EventType.TASK_COMPLETED,
    EventType.TASK_FAILED,
    EventType.TASK_CANCELLED,
    EventType.BATCH_COMPLETED,
    EventType.STORYBOARD_COMPLETED,
    EventType.STORYBOARD_FAILED,
)
STORYBOARD_TYPES = (EventType.STORYBOARD_COMPLETED, EventType.STORYBOARD_FAILED)
VIDEO_TYPES = (EventType.VIDEO_COMPLETED, EventType.VIDEO_FAILED)
ENDPOINT_TYPES = NATIVE_TYPES + VIDEO_TYPES
"""What an endpoint may ask for; a test comes unasked."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"  # tried as often as it may be; `redeliver` begins anew


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one attempt came to.

    Attributes:
        status: Of the receiver's answer; None = there was none, and `error` says why.
        is_our_fault: The receiver was not asked, or not heard; it says nothing of the endpoint.
    """

    took_s: float
    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None
    is_our_fault: bool = False

    @property
    def is_success(self) -> bool:
        return self.error is None and self.status is not None and 200 <= self.status < 300  # noqa: PLR2004


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What follows from a reply.

    Attributes:
        delay_s: Until the next attempt, where there is one.
        rest_s: For so long the endpoint is to get nothing at all.
        is_gone: The endpoint asked never to be called again.
    """

    state: DeliveryState
    delay_s: float = 0.0
    rest_s: float = 0.0
    is_gone: bool = False


DELAYS_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Before each attempt after the first, as Standard Webhooks advises: three days in all."""

ATTEMPTS_MAX = 1 + len(DELAYS_S)
JITTER_SHARE = 0.2
"""Delays vary by a tenth each way: a receiver that was down is not called by all at once."""

STATUS_GONE = 410
STATUSES_BUSY = frozenset({429, 502, 503, 504})
REST_S = 5.0
"""Of an endpoint that is busy and does not say for how long."""
RETRY_AFTER_MAX_S = 86_400.0
FAILING_MAX_S = 5 * 86_400.0
"""An endpoint that only failed for so long is switched off."""


def judge(reply: Reply, *, tries: int, jitter: float) -> Verdict:
    """Return what follows from *reply* to attempt number *tries*; *jitter* is uniform in 0..1."""
    if reply.is_success:
        return Verdict(state=DeliveryState.DELIVERED)
    if reply.status == STATUS_GONE:
        return Verdict(state=DeliveryState.DEAD, is_gone=True)
    rest_s = 0.0
    if reply.status in STATUSES_BUSY:
        rest_s = min(RETRY_AFTER_MAX_S, reply.retry_after_s or REST_S)
    if tries >= ATTEMPTS_MAX:
        return Verdict(state=DeliveryState.DEAD, rest_s=rest_s)
    delay_s = DELAYS_S[tries - 1] * (1 + JITTER_SHARE * (jitter - 0.5))
    return Verdict(state=DeliveryState.PENDING, delay_s=max(delay_s, rest_s), rest_s=rest_s)


ENDPOINT_PREFIX = "we_"
SECRET_PREFIX = "whsec_"  # noqa: S105  what secrets begin with is none
SECRET_BYTES = 32


def secret_text(key: bytes) -> str:
    """Return a signing key as receivers are given it (Standard Webhooks)."""
    return SECRET_PREFIX + base64.b64encode(key).decode()
