"""The `Idempotency-Key` header: what makes a POST safe to send twice."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request

from vidmill.api.edge import header
from vidmill.domain.errors import FieldProblem, IdempotencyInProgress, InvalidRequest
from vidmill.services.access import Caller
from vidmill.services.idempotency import IdempotencyKey

KEY_MAX_CHARS = 255
REPLAYED = {"Idempotency-Replayed": "true"}

PARAMETER: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Your name for this request, 1 to 255 visible characters, bare or quoted. "
    "Sent again within 24 hours it does nothing new: the answer is what the first one made.",
    "schema": {"type": "string", "maxLength": KEY_MAX_CHARS},
}
"""The header, for the reference."""
_VISIBLE = re.compile(r"[!-~]+")


class UnderWay:
    """The keyed requests this process is working on. Another's are waited for in the database."""

    def __init__(self) -> None:
        self._requests: dict[tuple[int, str], object] = {}

    @contextmanager
    def alone(self, caller: Caller, key: IdempotencyKey | None) -> Iterator[None]:
        """Hold the caller's *key* for the block; None = nothing to hold. Safe between threads.

        Raises:
            IdempotencyInProgress: The first request under it has not been answered yet.
        """
        if key is None:
            yield
            return
        name, mine = (caller.tenant_id, key.key), object()
        if self._requests.setdefault(name, mine) is not mine:
            raise IdempotencyInProgress(
                "the first request under this Idempotency-Key is still being worked on; send this"
                " one again in a second to have its answer"
            )
        try:
            yield
        finally:
            del self._requests[name]


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
