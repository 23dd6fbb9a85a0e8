"""Bearer keys. A key is looked up by its SHA-256, and remembered for a few seconds."""

import re
import time
from collections.abc import Callable

from starlette.requests import Request

from vidmill.api.edge import header
from vidmill.domain.errors import Unauthorized
from vidmill.services.access import Caller, hash_key

REMEMBERED_S = 5.0
"""How long a revoked key may still work in this process."""

REMEMBERED_MAX = 10_000

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,256}) *", re.IGNORECASE)

HINT = "send the header `Authorization: Bearer <key>`; `vidmill up` writes one to connection.json"


class Gate:
    """Lets in who has a key. *find* looks a hash up in the database; safe between threads."""

    def __init__(
        self,
        find: Callable[[str], Caller | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._clock = clock
        self._known: dict[str, tuple[float, Caller]] = {}

    def admit(self, request: Request) -> Caller:
        """Return who asks.

        Raises:
            Unauthorized: There is no key, or it is not one of ours.
        """
        given = header(request, b"authorization")
        if given is None:
            raise Unauthorized(f"the request has no API key; {HINT}")
        match = _BEARER.fullmatch(given)
        if match is None:
            raise Unauthorized(f"the Authorization header is not a Bearer key; {HINT}")
        return self._caller(hash_key(match[1]))

    def _caller(self, key_hash: str) -> Caller:
        now = self._clock()
        known = self._known.get(key_hash)
        if known and known[0] > now:
            return known[1]
        caller = self._find(key_hash)
        if caller is None:
            self._known.pop(key_hash, None)
            raise Unauthorized("the API key is not known here; check it, or make a new one")
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[key_hash] = (now + REMEMBERED_S, caller)
        return caller
