"""Counting requests: shared by replicas through Redis, and by nobody when Redis is silent."""

import asyncio
import time
from collections.abc import Iterator, Sequence

import pytest

from tests import brokers
from tests.builders import FakeClock
from tests.callers import make_caller
from vidmill.domain.allowance import Standing
from vidmill.services.rates import PATIENCE_S, SILENT_S, Counts, Rates

pytestmark = pytest.mark.sqlite  # no database has to do with it

CALLER = make_caller(key_submits_per_min=2, tenant_submits_per_min=10, key_reads_per_min=5)


@pytest.fixture
def redis() -> Iterator[brokers.PrivateRedis]:
    with brokers.private_redis() as server:
        yield server


async def used(rates: Rates) -> list[tuple[str, int | None]]:
    found: Sequence[Standing] = await rates.count(CALLER, is_creating=True)
    return [(standing.name, standing.used) for standing in found]


def test_replicas_count_together(redis: brokers.PrivateRedis, clock: FakeClock) -> None:
    async def ask() -> list[list[tuple[str, int | None]]]:
        replicas = [Rates(Counts(redis.url), clock=clock) for _ in range(2)]
        return [await used(replicas[turn % 2]) for turn in range(3)]

    assert asyncio.run(ask()) == [
        [("submit", 1), ("tenant-submit", 1)],
        [("submit", 2), ("tenant-submit", 2)],
        [("submit", 3)],  # refused: its tenant pays nothing
    ]


def test_processes_without_a_shared_store_count_alone(clock: FakeClock) -> None:
    async def ask() -> list[list[tuple[str, int | None]]]:
        return [await used(Rates(Counts("memory://"), clock=clock)) for _ in range(2)]

    assert asyncio.run(ask()) == [[("submit", 1), ("tenant-submit", 1)]] * 2


def test_new_minute_begins_at_nothing(clock: FakeClock) -> None:
    async def ask() -> list[int | None]:
        rates, found = Rates(Counts("memory://"), clock=clock), []
        for seconds in (0, 59, 1):
            clock.advance(seconds)
            found.append((await rates.count(CALLER, is_creating=True))[0].used)
        return found

    assert asyncio.run(ask()) == [1, 2, 1]


def test_looking_counts_nothing(redis: brokers.PrivateRedis, clock: FakeClock) -> None:
    async def ask() -> list[tuple[str, int, int | None]]:
        rates = Rates(Counts(redis.url), clock=clock)
        await rates.count(CALLER, is_creating=True)
        await rates.standings(CALLER)
        return [(s.name, s.limit, s.used) for s in await rates.standings(CALLER)]

    assert asyncio.run(ask()) == [("submit", 2, 1), ("tenant-submit", 10, 1), ("read", 5, 0)]


def test_what_comes_together_is_counted_one_by_one(redis: brokers.PrivateRedis) -> None:
    async def ask() -> tuple[list[int | None], int | None]:
        counts = Counts(redis.url)
        found = await asyncio.gather(*(counts.add("one name") for _ in range(100)))
        return sorted(found, key=str), await counts.get("one name")

    assert asyncio.run(ask()) == (sorted(range(1, 101), key=str), 100)


def test_request_given_up_disturbs_no_other(redis: brokers.PrivateRedis) -> None:
    async def ask() -> int | None:
        counts = Counts(redis.url)
        given_up, patient = (asyncio.create_task(counts.add("one name")) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        return await patient

    assert asyncio.run(ask()) == 2


def test_silent_redis_costs_one_wait_and_refuses_nobody(
    redis: brokers.PrivateRedis, clock: FakeClock
) -> None:
    async def ask() -> None:
        rates = Rates(Counts(redis.url, clock=clock), clock=clock)
        await rates.count(CALLER, is_creating=True)
        redis.freeze()
        began = time.monotonic()
        found = [await rates.count(CALLER, is_creating=True) for _ in range(50)]
        took_s = time.monotonic() - began
        assert {standing.used for standings in found for standing in standings} == {None}
        assert took_s < 3 * PATIENCE_S
        redis.thaw()
        assert (await used(rates))[0] == ("submit", None)  # not asked again yet
        clock.advance(SILENT_S)
        assert (await used(rates))[0][1] is not None

    asyncio.run(ask())


def test_after_a_silence_one_request_asks_and_the_others_go_on(
    redis: brokers.PrivateRedis, clock: FakeClock
) -> None:
    async def ask() -> float:
        counts = Counts(redis.url, clock=clock)
        await counts.add("before")
        redis.freeze()
        await counts.add("silent")
        clock.advance(SILENT_S)
        first = asyncio.create_task(counts.add("probe"))
        await asyncio.sleep(0)
        began = time.monotonic()
        assert [await counts.add("other") for _ in range(20)] == [None] * 20
        took_s = time.monotonic() - began
        assert await first is None
        redis.thaw()
        return took_s

    assert asyncio.run(ask()) < PATIENCE_S / 2


def test_redis_that_is_not_there_refuses_nobody(clock: FakeClock) -> None:
    async def ask() -> Sequence[Standing]:
        rates = Rates(Counts("redis://127.0.0.1:1"), clock=clock)
        return await rates.standings(CALLER)

    assert {standing.remaining for standing in asyncio.run(ask())} == {None}


def test_unknown_store_is_refused_with_the_remedy() -> None:
    with pytest.raises(LookupError, match="'memcached'; VIDMILL_LIMITS_URL takes memory, redis"):
        Counts("memcached://localhost")
