"""Receiving webhooks: was it really the server, and is it fresh? See standardwebhooks.com."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from vidmill.client._errors import WebhookRefused
from vidmill.client._models import Task, Wire

PREFIX = "whsec_"
TOLERANCE_S = 300.0
"""Older is refused: somebody may have kept a copy to send it again."""


class WebhookEvent(Wire):
    """A webhook that was verified.

    Attributes:
        webhook_id: The same at each attempt: whoever remembers it does nothing twice.
        data: Of task events how the task stands, as `status` tells it.
    """

    webhook_id: str
    type: str
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def task(self) -> Task | None:
        """The task that it is about; None if it is about something else, or was erased."""
        is_known = self.type.startswith("t2v.task.") and "status" in self.data
        return Task.model_validate(self.data) if is_known else None


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> WebhookEvent:
    """Return what a webhook says, once its signature and age are found right.

    Args:
        headers: Of the request, in whatever case.
        body: Exactly as it came: parsed and written anew, it has another signature.
        secret: `whsec_...`, or several that are good while secrets change.
        tolerance_s: How far its time may be from now, either way.
        now: Unix seconds; None = this computer's clock.

    Raises:
        WebhookRefused: A header is missing, no signature is right, or it is too old or too new.
        ValueError: A secret is not one.
    """
    found = {name.lower(): value for name, value in headers.items()}
    webhook_id, stamp = _header(found, "id"), _header(found, "timestamp")
    given = _signatures(_header(found, "signature"))
    _check_age(stamp, time.time() if now is None else now, tolerance_s)
    content = body.encode() if isinstance(body, str) else body
    signed = f"{webhook_id}.{stamp}.".encode() + content
    wanted = [_signature(_key(one), signed) for one in _as_list(secret)]
    if not any(hmac.compare_digest(mine, theirs) for mine in wanted for theirs in given):
        raise WebhookRefused(
            f"no signature of webhook {webhook_id[:60]} is right: another secret, or another body"
        )
    return _event(webhook_id, content)


def _as_list(secret: str | Sequence[str]) -> Sequence[str]:
    return [secret] if isinstance(secret, str) else secret


def _signatures(text: str) -> list[bytes]:
    """Return those of version 1; others, such as `v1a`, are for other keys."""
    versions = (part.partition(",") for part in text.split())
    return [signature.encode() for version, _, signature in versions if version == "v1"]


def _header(headers: Mapping[str, str], part: str) -> str:
    value = headers.get(f"webhook-{part}")
    if not value:
        raise WebhookRefused(f"the header webhook-{part} is missing")
    return value


def _check_age(stamp: str, now: float, tolerance_s: float) -> None:
    if not (stamp.isascii() and stamp.isdigit()):
        raise WebhookRefused(f"the header webhook-timestamp is {stamp[:40]!r}, not Unix seconds")
    age_s = now - int(stamp)
    if abs(age_s) > tolerance_s:
        raise WebhookRefused(
            f"it is {age_s:.0f} s old by this clock, and {tolerance_s:g} s off is the limit"
        )


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a webhook secret is {PREFIX} and base64; this one is not") from None
    if not key:
        raise ValueError("the webhook secret is empty")
    return key


def _signature(key: bytes, signed: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _event(webhook_id: str, content: bytes) -> WebhookEvent:
    try:
        return WebhookEvent.model_validate({**json.loads(content), "webhook_id": webhook_id})
    except (ValueError, TypeError) as error:
        raise WebhookRefused(f"webhook {webhook_id} is rightly signed, but no event") from error
