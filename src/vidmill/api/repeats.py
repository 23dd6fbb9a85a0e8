"""The `Idempotency-Key` header: what makes a POST safe to send twice."""

import hashlib
import json
import re

from starlette.requests import Request

from vidmill.api.edge import header
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.services.submission import IdempotencyKey

KEY_MAX_CHARS = 255
REPLAYED = {"Idempotency-Replayed": "true"}

_VISIBLE = re.compile(r"[!-~]+")


def read_key(request: Request, meaning: object) -> IdempotencyKey | None:
    """Return the request's key, bare or quoted; *meaning* is what its repetition must repeat.

    Raises:
        InvalidRequest: The key is empty, too long, or not visible ASCII.
    """
    given = header(request, b"idempotency-key")
    if given is None:
        return None
    key = given.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key:
        raise _problem("blank", "it is empty; send a UUID, or leave the header out")
    if len(key) > KEY_MAX_CHARS:
        raise _problem(
            "max_length",
            f"it has {len(key)} characters, the limit is {KEY_MAX_CHARS}; send a UUID",
            limit=KEY_MAX_CHARS,
        )
    if not _VISIBLE.fullmatch(key):
        raise _problem("forbidden_character", "it must be visible ASCII without spaces")
    text = json.dumps(meaning, sort_keys=True)
    return IdempotencyKey(key=key, fingerprint=hashlib.sha256(text.encode()).hexdigest())


def _problem(code: str, message: str, *, limit: int | None = None) -> InvalidRequest:
    pointer = "#/header/Idempotency-Key"
    return InvalidRequest([FieldProblem(pointer=pointer, code=code, message=message, limit=limit)])
