"""How often a key and its tenant may ask, counted by the minute where every replica can see it.

Windows are fixed: whoever asks at the end of one and the beginning of the next may have twice the
rate for a moment, at a third of the cost of windows that move. A store that is silent refuses
nobody: it is asked again after `SILENT_S`, by one request.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from limits.errors import StorageError
from limits.storage import storage_from_string

from vidmill.domain.allowance import Standing
from vidmill.services.access import Caller
from vidmill.store.accounts import Plan
from vidmill.telemetry import get_logger

log = get_logger(__name__)

WINDOW_S = 60
PATIENCE_S = 0.1
"""What a silent store may cost a request, once."""

SILENT_S = 5.0
CONNECTIONS = 32
"""Requests that ask the store at one time; each has a connection."""

_SCHEMES = ("memory", "redis", "rediss")


@dataclass(frozen=True)
class _Policy:
    """One limit: its public name, where the plan has it, and whose requests it counts."""

    name: str
    field: str
    owner: Callable[[Caller], int]

    def limit(self, plan: Plan) -> int | None:
        limit: int | None = getattr(plan, self.field)
        return limit


def _key(caller: Caller) -> int:
    return caller.key_id


def _tenant(caller: Caller) -> int:
    return caller.tenant_id


_POLICIES: Mapping[bool, tuple[_Policy, ...]] = {
    True: (
        _Policy("submit", "key_submits_per_min", _key),
        _Policy("tenant-submit", "tenant_submits_per_min", _tenant),
    ),
    False: (
        _Policy("read", "key_reads_per_min", _key),
        _Policy("tenant-read", "tenant_reads_per_min", _tenant),
    ),
}
"""By whether the request creates or charges. Keys come first: a key that is refused takes nothing
from its tenant."""


class Counts:
    """Numbers by name, in memory or in a Redis. For one event loop.

    What is counted under one name while the store is asked goes there together: alone, each would
    cost a third of the request it belongs to (measured).
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Connect to nothing yet.

        Raises:
            LookupError: *url* names no kind of store there is.
        """
        scheme = url.partition(":")[0]
        if scheme not in _SCHEMES:
            raise LookupError(
                f"rate limits cannot be counted in {scheme!r}; VIDMILL_LIMITS_URL takes"
                f" {', '.join(_SCHEMES)}"
            )
        options = {} if scheme == "memory" else {"implementation": "redispy"}
        self._store: Any = storage_from_string(f"async+{url}", wrap_exceptions=True, **options)
        self._clock = clock
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._silent_until = 0.0
        self._lines: dict[str, list[asyncio.Future[int | None]]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    async def add(self, name: str) -> int | None:
        """Count one more under *name*; return the sum, or None if the store is silent."""
        if self._clock() < self._silent_until:
            return None
        mine: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(name, []).append(mine)
        if name not in self._sending:
            self._sending[name] = asyncio.create_task(self._send(name))
        return await mine

    async def _send(self, name: str) -> None:
        try:
            while line := self._lines.pop(name, []):
                total = await self._ask(partial(self._store.incr, name, 2 * WINDOW_S, len(line)))
                for behind, waiting in enumerate(reversed(line)):
                    if not waiting.done():
                        waiting.set_result(None if total is None else total - behind)
        finally:
            del self._sending[name]

    async def get(self, name: str) -> int | None:
        """Return what is counted under *name*, or None if the store is silent."""
        return await self._ask(partial(self._store.get, name))

    async def _ask(self, question: Callable[[], Any]) -> int | None:
        now = self._clock()
        if now < self._silent_until:
            return None
        if self._silent_until:
            self._silent_until = now + SILENT_S  # this one tries, the others go on without
        try:
            async with asyncio.timeout(PATIENCE_S), self._turns:
                found = int(await question())
        except (OSError, TimeoutError, StorageError) as error:
            self._silent_until = now + SILENT_S
            log.warning("limits_store_silent", error=type(error).__name__, seconds=SILENT_S)
            return None
        self._silent_until = 0.0
        return found


class Rates:
    """Counts requests against the limits of their callers' plans. *clock* gives Unix seconds."""

    def __init__(self, counts: Counts, *, clock: Callable[[], float]) -> None:
        self._counts = counts
        self._clock = clock

    async def count(self, caller: Caller, *, is_creating: bool) -> Sequence[Standing]:
        """Count one request; return each limit it fell under, up to the first that it exceeds."""
        found: list[Standing] = []
        for policy in _POLICIES[is_creating]:
            limit = policy.limit(caller.plan)
            if limit is None:
                continue
            name, resets_at = self._window(policy, caller)
            used = await self._counts.add(name)
            found.append(_standing(policy, limit, used, resets_at))
            if used is not None and used > limit:
                break
        return found

    async def standings(self, caller: Caller) -> Sequence[Standing]:
        """Return how every limit of the plan stands; nothing is counted."""
        found: list[Standing] = []
        for policy in (*_POLICIES[True], *_POLICIES[False]):
            limit = policy.limit(caller.plan)
            if limit is not None:
                name, resets_at = self._window(policy, caller)
                used = await self._counts.get(name)
                found.append(_standing(policy, limit, used and min(used, limit), resets_at))
        return found

    def _window(self, policy: _Policy, caller: Caller) -> tuple[str, float]:
        number = int(self._clock() // WINDOW_S)
        return f"{policy.name}:{policy.owner(caller)}:{number}", float((number + 1) * WINDOW_S)


def _standing(policy: _Policy, limit: int, used: int | None, resets_at: float) -> Standing:
    return Standing(
        name=policy.name, limit=limit, used=used, window_s=WINDOW_S, resets_at=resets_at
    )
