"""Opaque cursors: where a list goes on, signed together with the question it belongs to."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping

from vidmill.domain.errors import InvalidCursor

TAG_BYTES = 12


def make_cursor(after: int, question: Mapping[str, object], *, secret: bytes) -> str:
    """Return a cursor for what follows *after* in the answer to *question*."""
    place = str(after).encode()
    tag = _tag(place, question, secret)
    return base64.urlsafe_b64encode(tag + place).decode().rstrip("=")


def read_cursor(cursor: str, question: Mapping[str, object], *, secret: bytes) -> int:
    """Return the *after* of a cursor.

    Raises:
        InvalidCursor: It is damaged, or was made for another question.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor[:200].encode() + b"==")
        tag, place = raw[:TAG_BYTES], raw[TAG_BYTES:]
        if hmac.compare_digest(tag, _tag(place, question, secret)):
            return int(place)
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise InvalidCursor(
        "the cursor is damaged or belongs to other filters; start again without a cursor"
    )


def _tag(place: bytes, question: Mapping[str, object], secret: bytes) -> bytes:
    asked = json.dumps(question, sort_keys=True, default=str).encode()
    message = b"vidmill-cursor-v1\n" + place + b"\n" + asked
    return hmac.new(secret, message, hashlib.sha256).digest()[:TAG_BYTES]
