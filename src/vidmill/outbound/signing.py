"""Signatures of webhooks as Standard Webhooks 1.0 has them, `v1`: HMAC-SHA256."""

import base64
import hashlib
import hmac
from collections.abc import Iterable


def signature(key: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return what the header `webhook-signature` says for one *key*."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def headers(
    keys: Iterable[bytes], *, message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Return the three headers; a receiver that knows any of *keys* accepts them.

    *message_id* names the event, whatever the attempt, and holds no dot; *timestamp* is the
    attempt's own, Unix seconds.
    """
    signatures = [
        signature(key, message_id=message_id, timestamp=timestamp, body=body) for key in keys
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
