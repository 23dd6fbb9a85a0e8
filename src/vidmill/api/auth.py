"""Bearer keys. A key is looked up by its SHA-256, and remembered for a few seconds."""

import asyncio
import re
import time
from collections.abc import Callable

from starlette.requests import Request

from vidmill.api.edge import header
from vidmill.api.waiting import Reads
from vidmill.domain.api_key import is_mistyped
from vidmill.domain.errors import ServiceUnavailable, Unauthorized
from vidmill.services.access import Caller, hash_key

REMEMBERED_S = 5.0
"""How long a revoked or expired key may still work in this process."""

REMEMBERED_MAX = 10_000


_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,256}) *", re.IGNORECASE)

_Question = tuple[asyncio.AbstractEventLoop, str]
"""An event loop shares its answers with itself alone; a server has only one."""

HINT = "send the header `Authorization: Bearer <key>`; `vidmill up` writes one to connection.json"


class Gate:
    """Lets in who has a key. *find* looks a hash up in the database; safe between threads."""

    def __init__(
        self,
        find: Callable[[str], Caller | None],
        *,
        reads: Reads,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._reads = reads
        self._clock = clock
        self._known: dict[str, tuple[float, Caller]] = {}
        self._asked: dict[_Question, asyncio.Task[Caller]] = {}

    async def admit(self, request: Request) -> Caller:
        """Return who asks.

        Raises:
            Unauthorized: There is no key, or it is not one of ours.
        """
        return await self.admit_key(key_of(header(request, b"authorization")))

    async def admit_key(self, key: str) -> Caller:
        """Return whose *key* it is. A thousand requests with one key look it up once.

        Raises:
            Unauthorized: It is not one of ours, or has expired.
        """
        if is_mistyped(key):
            raise Unauthorized("the API key is mistyped or cut off; copy it again, whole")
        key_hash = hash_key(key)
        known = self._recall(key_hash)
        if known is not None:
            return known
        question = asyncio.get_running_loop(), key_hash
        asked = self._asked.get(question)
        if asked is None:
            asked = asyncio.create_task(self._reads.run(lambda: self._look_up(key_hash)))
            asked.add_done_callback(lambda _: self._asked.pop(question, None))
            self._asked[question] = asked
        return await asyncio.shield(asked)

    async def still_admits(self, key: str) -> bool:
        """Return whether *key*, admitted before, is one of ours yet; for what lasts.

        While the database is away nobody is turned out.
        """
        try:
            await self.admit_key(key)
        except Unauthorized:
            return False
        except ServiceUnavailable:
            return True
        return True

    def _recall(self, key_hash: str) -> Caller | None:
        known = self._known.get(key_hash)
        return known[1] if known and known[0] > self._clock() else None

    def _look_up(self, key_hash: str) -> Caller:
        caller = self._find(key_hash)
        if caller is None:
            self._known.pop(key_hash, None)
            raise Unauthorized("the API key is not known here; check it, or make a new one")
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[key_hash] = (self._clock() + REMEMBERED_S, caller)
        return caller


def key_of(authorization: str | None) -> str:
    """Return the key in an Authorization header.

    Raises:
        Unauthorized: There is none.
    """
    if authorization is None:
        raise Unauthorized(f"the request has no API key; {HINT}")
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise Unauthorized(f"the Authorization header is not a Bearer key; {HINT}")
    return match[1]
