"""The deliverer: what it sends, what it makes of replies, and who may hold up whom."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from tests.builders import FakeClock
from tests.outboxes import default_of, endpoint_now, make_endpoint, outbox, record
from vidmill.domain.errors import ServiceUnavailable
from vidmill.domain.webhook import ATTEMPTS_MAX, DELAYS_S, DeliveryState, Reply
from vidmill.services.delivering import (
    CALLS_MAX,
    CALLS_OF_ENDPOINT,
    CALLS_OF_TENANT,
    LEASE_S,
    Courier,
    Deliverer,
)
from vidmill.store import accounts, deliveries, webhooks
from vidmill.store.deliveries import Delivery
from vidmill.store.session import Database

OK = Reply(took_s=0.01, status=200)
DAY_S = 86_400.0


@dataclass
class Post:
    """A sender that reaches nobody: replies by URL, and remembers what it was given.

    Attributes:
        hanging: URLs that do not reply until `release` is set.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    sent: list[tuple[str, str, bytes, tuple[bytes, ...]]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, url: str, *, message_id: str, body: bytes, keys: Sequence[bytes]) -> Reply:
        self.sent.append((url, message_id, body, tuple(keys)))
        if url in self.hanging:
            await self.release.wait()
        return self.replies.get(url, OK)

    def urls(self) -> Counter[str]:
        return Counter(url for url, *_ in self.sent)


def make_deliverer(
    db: Database, post: Post, render: Callable[[Delivery], bytes] = lambda d: d.subject.encode()
) -> tuple[Deliverer, Counter[str]]:
    outcomes: Counter[str] = Counter()
    courier = Courier(db=db, send=post.send, render=render, rng=random.Random(7), outcomes=outcomes)
    return Deliverer(courier), outcomes


def deliver_all(db: Database, post: Post) -> Counter[str]:
    """Make attempts until nothing is due; return what came of them."""
    deliverer, outcomes = make_deliverer(db, post)

    async def work() -> None:
        while await deliverer.turn():
            await deliverer.finish()

    asyncio.run(work())
    return outcomes


def test_delivery_goes_to_the_endpoint_signed_with_its_keys(db: Database) -> None:
    endpoint = make_endpoint(db, secret="aa" * 32)
    db.write(lambda uow: webhooks.rotate(uow, endpoint.id, "bb" * 32, old_until=uow.now + 60))
    record(db, "bat_1")
    post = Post()
    outcomes = deliver_all(db, post)
    [delivery] = outbox(db, endpoint)
    keys = (b"\xbb" * 32, b"\xaa" * 32)
    assert post.sent == [("https://hooks.example/", delivery.public_id, b"bat_1", keys)]
    assert (delivery.state, outcomes) == (DeliveryState.DELIVERED, Counter(delivered=1))


def test_url_of_its_own_is_signed_with_the_default_key(db: Database) -> None:
    record(db, "bat_1", url="https://own.example/x")
    post = Post()
    deliver_all(db, post)
    [(url, _, _, keys)] = post.sent
    assert (url, keys) == ("https://own.example/x", default_of(db).keys(0.0))


def test_failed_delivery_comes_again_under_the_same_id_until_it_is_given_up(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    post = Post(replies={"https://hooks.example/": Reply(took_s=0, status=500)})
    outcomes = deliver_all(db, post)
    for delay_s in DELAYS_S:
        clock.advance(delay_s * 1.1)
        outcomes += deliver_all(db, post)
    clock.advance(2 * DAY_S)
    outcomes += deliver_all(db, post)
    [delivery] = outbox(db, endpoint)
    assert delivery.state is DeliveryState.DEAD
    assert {message_id for _, message_id, *_ in post.sent} == {delivery.public_id}
    assert outcomes == Counter(failed=9, given_up=1)


def test_endpoint_that_is_gone_is_switched_off(db: Database) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    deliver_all(db, Post(replies={"https://hooks.example/": Reply(took_s=0, status=410)}))
    now = endpoint_now(db, endpoint)
    assert (now.is_enabled, now.disabled_reason) == (False, "it answered 410 Gone")
    assert outbox(db, endpoint)[0].state is DeliveryState.DEAD


def test_endpoint_that_only_fails_for_five_days_is_switched_off(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    post = Post(replies={"https://hooks.example/": Reply(took_s=0, error="no connection")})
    for day in range(6):
        assert endpoint_now(db, endpoint).is_enabled, f"day {day}"
        record(db, f"bat_{day}")
        deliver_all(db, post)
        clock.advance(DAY_S)
    assert endpoint_now(db, endpoint).disabled_reason == "it only failed for 5 days"


def test_one_success_in_five_days_is_enough(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    post = Post()
    for day in range(8):
        status = 200 if day == 3 else 500
        post.replies["https://hooks.example/"] = Reply(took_s=0, status=status)
        record(db, f"bat_{day}")
        deliver_all(db, post)
        clock.advance(DAY_S)
    assert endpoint_now(db, endpoint).is_enabled


def test_url_that_is_gone_speaks_for_no_other_url_of_the_tenant(db: Database) -> None:
    record(db, "bat_1", url="https://gone.example/")
    record(db, "bat_2", url="https://fine.example/")
    deliver_all(db, Post(replies={"https://gone.example/": Reply(took_s=0, status=410)}))
    states = {d.url: d.state for d in outbox(db, default_of(db))}
    assert states == {
        "https://gone.example/": DeliveryState.DEAD,
        "https://fine.example/": DeliveryState.DELIVERED,
    }
    assert default_of(db).is_enabled


def test_busy_endpoint_gets_nothing_until_it_has_rested(db: Database, clock: FakeClock) -> None:
    make_endpoint(db)
    busy = Reply(took_s=0, status=429, retry_after_s=60)
    post = Post(replies={"https://hooks.example/": busy})
    record(db, "bat_1")
    deliver_all(db, post)
    record(db, "bat_2")
    clock.advance(59)
    deliver_all(db, post)
    assert len(post.sent) == 1
    clock.advance(1)
    post.replies.clear()
    deliver_all(db, post)
    assert len(post.sent) == 3


def test_endpoint_that_hangs_holds_up_nobody_else(db: Database) -> None:
    make_endpoint(db, url="https://hangs.example/")
    fine = make_endpoint(db, url="https://fine.example/")
    for number in range(30):
        record(db, f"bat_{number}")

    async def work() -> None:
        post = Post(hanging={"https://hangs.example/"})
        deliverer, outcomes = make_deliverer(db, post)
        while outcomes["delivered"] < 30:
            await deliverer.turn()
            await asyncio.sleep(0.001)
        assert post.urls()["https://hangs.example/"] == CALLS_OF_ENDPOINT
        post.release.set()
        await deliverer.finish()

    asyncio.run(work())
    assert {d.state for d in outbox(db, fine)} == {DeliveryState.DELIVERED}


def test_endpoint_that_failed_before_is_called_once_at_a_time(db: Database) -> None:
    endpoint = make_endpoint(db, url="https://hangs.example/")
    db.write(lambda uow: webhooks.note_failure(uow, endpoint.id, rest_s=0))
    for number in range(5):
        record(db, f"bat_{number}")
    assert calls_at_once(db, Post(hanging={"https://hangs.example/"})) == 1


def test_tenant_has_a_quarter_of_all_calls(db: Database) -> None:
    urls = {f"https://hangs-{number}.example/" for number in range(10)}
    for url in urls:
        make_endpoint(db, url=url)
    for number in range(5):
        record(db, f"bat_{number}")
    assert calls_at_once(db, Post(hanging=urls)) == CALLS_OF_TENANT


def test_all_calls_together_have_a_limit(db: Database) -> None:
    urls = set()
    names = [f"tenant-{number}" for number in range(4, 10)]
    db.write(lambda uow: [accounts.ensure_tenant(uow, name) for name in names])
    for tenant in range(1, 10):
        for number in range(4):
            url = f"https://hangs-{tenant}-{number}.example/"
            urls.add(url)
            make_endpoint(db, tenant_id=tenant, url=url)
        for number in range(4):
            record(db, f"bat_{number}", tenant_id=tenant)
    assert calls_at_once(db, Post(hanging=urls)) == CALLS_MAX


def calls_at_once(db: Database, post: Post) -> int:
    """Return how many calls are begun while none ends."""

    async def work() -> int:
        deliverer, _ = make_deliverer(db, post)
        found = 0
        while begun := await deliverer.turn():
            found += begun
        post.release.set()
        await deliverer.finish()
        return found

    return asyncio.run(work())


def test_what_cannot_be_rendered_comes_again_and_holds_up_nothing(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_bad")
    record(db, "bat_good")
    post = Post()

    def render(delivery: Delivery) -> bytes:
        if delivery.subject == "bat_bad":
            raise LookupError(delivery.subject)
        return b"{}"

    deliverer, _ = make_deliverer(db, post, render)

    async def work() -> None:
        await deliverer.turn()
        await deliverer.finish()

    asyncio.run(work())
    states = {d.subject: (d.state, d.due_at > clock.now) for d in outbox(db, endpoint)}
    assert states["bat_bad"] == (DeliveryState.PENDING, True)
    assert states["bat_good"][0] is DeliveryState.DELIVERED


def test_what_can_never_be_rendered_is_given_up_and_held_against_nobody(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_bad")

    def render(delivery: Delivery) -> bytes:
        raise LookupError(delivery.subject)

    deliverer, outcomes = make_deliverer(db, Post(), render)

    async def work() -> None:
        for delay_s in (0, *DELAYS_S, 2 * DAY_S):
            clock.advance(delay_s * 1.1)
            await deliverer.turn()
            await deliverer.finish()

    asyncio.run(work())
    [delivery] = outbox(db, endpoint)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DEAD, 10)
    assert delivery.log[-1]["error"] == "a fault of Vidmill's: LookupError"
    assert outcomes == Counter(failed=9, given_up=1)
    assert endpoint_now(db, endpoint).failing_since is None


def test_delivery_whose_attempts_never_end_is_given_up(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    for _ in range(ATTEMPTS_MAX):
        assert db.write(lambda uow: deliveries.take(uow, endpoint.id, limit=1, lease_s=60))
        clock.advance(61)
    post = Post()

    assert deliver_all(db, post) == Counter(given_up=1)

    assert (outbox(db, endpoint)[0].state, post.sent) == (DeliveryState.DEAD, [])


def test_database_that_is_away_while_rendering_ends_no_attempt(
    db: Database, clock: FakeClock
) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")

    def render(_: Delivery) -> bytes:
        raise ServiceUnavailable("the database is away")

    deliverer, outcomes = make_deliverer(db, Post(), render)

    async def work() -> None:
        await deliverer.turn()
        await deliverer.finish()

    asyncio.run(work())
    [delivery] = outbox(db, endpoint)
    assert (delivery.state, delivery.log, outcomes) == (DeliveryState.PENDING, [], Counter())
    assert delivery.due_at == clock.now + LEASE_S


def test_two_processes_share_the_work_and_send_nothing_twice(db: Database) -> None:
    endpoint = make_endpoint(db)
    for number in range(20):
        record(db, f"bat_{number}")
    post = Post()

    async def work() -> None:
        both = [make_deliverer(db, post)[0] for _ in range(2)]
        while sum(await asyncio.gather(*(deliverer.turn() for deliverer in both))):
            await asyncio.gather(*(deliverer.finish() for deliverer in both))

    asyncio.run(work())
    assert Counter(message_id for _, message_id, *_ in post.sent) == Counter(
        delivery.public_id for delivery in outbox(db, endpoint)
    )


def test_attempt_of_a_process_that_died_is_made_by_another(db: Database, clock: FakeClock) -> None:
    endpoint = make_endpoint(db)
    record(db, "bat_1")
    dying, _ = make_deliverer(db, Post(hanging={"https://hooks.example/"}))

    async def die() -> None:
        await dying.turn()
        await dying.finish(0.0)

    asyncio.run(die())
    post = Post()
    deliver_all(db, post)
    assert post.sent == []
    clock.advance(61)
    deliver_all(db, post)
    assert outbox(db, endpoint)[0].state is DeliveryState.DELIVERED


def test_thread_delivers_until_it_is_stopped(db: Database) -> None:
    make_endpoint(db)
    record(db, "bat_1")
    stop, post = threading.Event(), Post()
    sent = post.send

    async def send(url: str, *, message_id: str, body: bytes, keys: Sequence[bytes]) -> Reply:
        stop.set()
        return await sent(url, message_id=message_id, body=body, keys=keys)

    outcomes: Counter[str] = Counter()
    courier = Courier(
        db=db, send=send, render=lambda _: b"{}", rng=random.Random(7), outcomes=outcomes
    )
    Deliverer(courier).run(stop)
    assert outcomes == Counter(delivered=1)


@pytest.mark.sqlite  # the one whose reads and writes fail alike when its file is gone
def test_database_that_is_away_does_not_end_the_thread(db: Database) -> None:
    db.close()
    stop = threading.Event()
    deliverer, _ = make_deliverer(db, Post())
    threading.Timer(0.2, stop.set).start()
    deliverer.run(stop)
