"""The limits of the caller's plan at the door: `RateLimit` headers, and 429 beyond them.

Header fields as in draft-ietf-httpapi-ratelimit-headers: names are quoted strings, numbers are not.
A plan without limits costs nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from vidmill.api.metrics import Meter
from vidmill.api.waiting import Reads
from vidmill.domain.allowance import Standing
from vidmill.domain.errors import RateLimited
from vidmill.services.access import Caller
from vidmill.services.quota import Quota
from vidmill.services.rates import Rates
from vidmill.store.accounts import LIMITS, Plan

DAY_REMEMBERED_S = 1.0
"""How old the number of today's clips may be in a header; it is exact where clips are accepted."""

_REMEMBERED_MAX = 10_000


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """Counts requests. For one event loop; *clock* gives Unix seconds."""

    rates: Rates
    quota: Quota
    reads: Reads
    meter: Meter
    clock: Callable[[], float]
    _days: dict[int, tuple[float, Standing]] = field(default_factory=dict)

    async def admit(self, caller: Caller, scope: Scope, *, is_creating: bool) -> None:
        """Count one request, and put what is left into the headers of its answer, whatever it is.

        Raises:
            RateLimited: There were too many; nothing was done.
        """
        if not _is_limited(caller.plan):
            return
        rates = await self.rates.count(caller, is_creating=is_creating)
        standings = [standing for standing in rates if standing.used is not None]
        self.meter.uncounted += len(rates) > len(standings)
        now = self.clock()
        day = await self._day(caller)
        scope["answer_headers"] = _headers([*standings, *([day] if day else [])], now)
        for standing in standings:
            if (standing.used or 0) > standing.limit:
                self.meter.limited[standing.name,] += 1
                raise _refusal(standing, now)

    async def _day(self, caller: Caller) -> Standing | None:
        if caller.plan.clips_per_day is None:
            return None
        until, known = self._days.get(caller.tenant_id, (0.0, None))
        if known is not None and self.clock() < until:
            return known
        found = await self.reads.run(lambda: self.quota.day(caller.tenant_id, caller.plan))
        assert found is not None, "the plan limits the clips of a day"
        if len(self._days) >= _REMEMBERED_MAX:
            self._days.clear()
        self._days[caller.tenant_id] = (self.clock() + DAY_REMEMBERED_S, found)
        return found


def _is_limited(plan: Plan) -> bool:
    return any(getattr(plan, name) is not None for name in LIMITS)


def _headers(standings: Sequence[Standing], now: float) -> list[tuple[bytes, bytes]]:
    if not standings:
        return []
    policy = ", ".join(f'"{s.name}";q={s.limit};w={s.window_s}' for s in standings)
    left = ", ".join(f'"{s.name}";r={s.remaining};t={_seconds(s, now)}' for s in standings)
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())]


def _seconds(standing: Standing, now: float) -> int:
    """Return whole seconds until *standing* begins anew, rounded up: then it has."""
    assert standing.resets_at is not None, "what has a window has an end"
    return max(1, math.ceil(standing.resets_at - now))


_WHOSE = {"submit": "this key", "read": "this key"}


def _refusal(standing: Standing, now: float) -> RateLimited:
    seconds = _seconds(standing, now)
    whose = _WHOSE.get(standing.name, "your tenant's keys together")
    return RateLimited(
        f"{whose} may send {standing.limit} requests a minute of the kind {standing.name!r}, and"
        f" this was one more; send it again in {seconds} s",
        retry_after_s=seconds,
    )
