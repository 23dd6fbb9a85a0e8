"""Delivering webhooks: takes what is due, sends it, records what came of it. At least once.

Every process that serves has a `Deliverer`; they share the outbox by leases. An endpoint has a few
calls at a time, one that fails has one, a tenant a quarter of all: who does not answer holds up
nobody but himself.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from vidmill.domain.errors import ServiceUnavailable
from vidmill.domain.webhook import (
    ATTEMPTS_MAX,
    FAILING_MAX_S,
    DeliveryState,
    Reply,
    Verdict,
    judge,
)
from vidmill.store import deliveries, webhooks
from vidmill.store.deliveries import Delivery
from vidmill.store.session import Database, UnitOfWork
from vidmill.store.webhooks import Endpoint
from vidmill.telemetry import get_logger

log = get_logger(__name__)

POLL_S = 1.0
LEASE_S = 60.0
"""Four times what an attempt may take: reading and recording may wait for the database, too."""

CALLS_MAX = 64
CALLS_OF_TENANT = 16
CALLS_OF_ENDPOINT = 4
CALLS_WHILE_FAILING = 1
TIDY_S = 3600.0
CLOSE_S = 3.0
"""Attempts under way may end within that when the process stops; others are made once more."""

OUTCOMES = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "failed",
    DeliveryState.DEAD: "given_up",
}


class Send(Protocol):
    async def __call__(
        self, url: str, *, message_id: str, body: bytes, keys: Sequence[bytes]
    ) -> Reply:
        """Make one attempt; whatever the receiver does is in the reply."""
        ...


@dataclass(frozen=True, kw_only=True)
class Courier:
    """Makes attempts.

    Attributes:
        render: Returns the body of a delivery, as things stand now.
        outcomes: Counts attempts by what came of them.
    """

    db: Database
    send: Send
    render: Callable[[Delivery], bytes]
    rng: random.Random
    outcomes: Counter[str]

    async def attempt(
        self, endpoint: Endpoint, delivery: Delivery, *, is_last: bool = False
    ) -> Reply:
        """Make the attempt that was begun by taking *delivery*, and record what came of it."""
        reply = await self._reply(endpoint, delivery)
        verdict = judge(reply, tries=delivery.tries, jitter=self.rng.random())
        if is_last and verdict.state is DeliveryState.PENDING:
            verdict = Verdict(state=DeliveryState.DEAD)
        record = partial(_record, endpoint=endpoint, delivery=delivery, reply=reply)
        await asyncio.to_thread(self.db.write, partial(record, verdict=verdict))
        self.outcomes[OUTCOMES[verdict.state]] += 1
        return reply

    async def _reply(self, endpoint: Endpoint, delivery: Delivery) -> Reply:
        """Return what the attempt came to; one that fails by a fault of ours is told and counts."""
        if delivery.tries > ATTEMPTS_MAX:
            return Reply(took_s=0, error="no attempt came to an end", is_our_fault=True)
        try:
            body = await asyncio.to_thread(self.render, delivery)
            url = delivery.url or endpoint.url
            assert url is not None, "a delivery by way of `default` brings its URL"
            keys = endpoint.keys(self.db.now())
            return await self.send(url, message_id=delivery.public_id, body=body, keys=keys)
        except ServiceUnavailable:  # the database is away, and takes no record either
            raise
        except Exception as error:
            log.exception("webhook_fault", delivery=delivery.public_id)
            name = type(error).__name__
            return Reply(took_s=0, error=f"a fault of Vidmill's: {name}", is_our_fault=True)


class Deliverer:
    """Runs in a thread of its own, on an event loop of its own."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._db = courier.db
        self._calls: dict[asyncio.Task[None], Endpoint] = {}
        self._tidy_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Deliver until *stop* is set."""
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            await _attempted(self.turn())
            await _attempted(self._tidy())
            if self._calls:  # whoever ends makes room for the next, who need not wait for the poll
                calls = list(self._calls)
                await asyncio.wait(calls, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(POLL_S)
        await self.finish(CLOSE_S)

    async def turn(self) -> int:
        """Begin attempts at what is due, as far as there is room; return how many."""
        taken = await asyncio.to_thread(self._take)
        for endpoint, delivery in taken:
            call = asyncio.create_task(_attempted(self._courier.attempt(endpoint, delivery)))
            self._calls[call] = endpoint
            call.add_done_callback(self._calls.pop)
        return len(taken)

    async def finish(self, within_s: float | None = None) -> None:
        """Wait for attempts under way; end those that take longer than *within_s*."""
        if self._calls:
            _, late = await asyncio.wait(list(self._calls), timeout=within_s)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _take(self) -> list[tuple[Endpoint, Delivery]]:
        rooms = _Rooms(list(self._calls.values()))
        now = self._db.now()
        ready = self._db.read(lambda conn: deliveries.ready(conn, now=now, limit=CALLS_MAX))
        open_to = [endpoint for endpoint in ready if rooms.left(endpoint) > 0]
        return self._db.write(partial(_fill, rooms.held, open_to)) if open_to else []

    async def _tidy(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._tidy_at:
            self._tidy_at = loop.time() + TIDY_S
            await asyncio.to_thread(self._forget)

    def _forget(self) -> None:
        now = self._db.now()
        while ids := self._db.read(lambda conn: deliveries.forgettable(conn, now=now)):
            self._db.write(partial(deliveries.forget, ids=ids))


class _Rooms:
    """How many more calls an endpoint may have beside those in *held*, one entry a call."""

    def __init__(self, held: Sequence[Endpoint]) -> None:
        self.held = held
        self._of_endpoint = Counter(endpoint.id for endpoint in held)
        self._of_tenant = Counter(endpoint.tenant_id for endpoint in held)

    def left(self, endpoint: Endpoint) -> int:
        is_failing = endpoint.failing_since is not None
        most = CALLS_WHILE_FAILING if is_failing else CALLS_OF_ENDPOINT
        return min(
            CALLS_MAX - self._of_endpoint.total(),
            CALLS_OF_TENANT - self._of_tenant[endpoint.tenant_id],
            most - self._of_endpoint[endpoint.id],
        )

    def fill(self, endpoint: Endpoint, number: int) -> None:
        self._of_endpoint[endpoint.id] += number
        self._of_tenant[endpoint.tenant_id] += number


def _fill(
    held: Sequence[Endpoint], ready: Sequence[Endpoint], uow: UnitOfWork
) -> list[tuple[Endpoint, Delivery]]:
    """Take what there is room for; it counts afresh, since a write may run twice."""
    rooms, taken = _Rooms(held), []
    for endpoint in ready:
        room = rooms.left(endpoint)
        if room > 0:
            found = deliveries.take(uow, endpoint.id, limit=room, lease_s=LEASE_S)
            rooms.fill(endpoint, len(found))
            taken += [(endpoint, delivery) for delivery in found]
    return taken


def _record(
    uow: UnitOfWork, *, endpoint: Endpoint, delivery: Delivery, reply: Reply, verdict: Verdict
) -> None:
    is_ours = deliveries.settle(uow, delivery, reply, verdict)
    uow.after_commit(partial(_log, endpoint, delivery, reply, verdict))
    # URLs behind `default` have nothing in common.
    if not is_ours or endpoint.is_default or reply.is_our_fault:
        return
    if reply.is_success:
        webhooks.note_success(uow, endpoint.id)
        return
    since = webhooks.note_failure(uow, endpoint.id, rest_s=verdict.rest_s)
    if verdict.is_gone:
        _switch_off(uow, endpoint, "it answered 410 Gone")
    elif uow.now - since >= FAILING_MAX_S:
        _switch_off(uow, endpoint, f"it only failed for {FAILING_MAX_S / 86_400:.0f} days")


def _switch_off(uow: UnitOfWork, endpoint: Endpoint, reason: str) -> None:
    webhooks.change(uow, endpoint.id, {"is_enabled": False, "disabled_reason": reason})
    fields = {"endpoint": endpoint.public_id, "reason": reason}
    uow.after_commit(lambda: log.warning("webhook_switched_off", **fields))


def _log(endpoint: Endpoint, delivery: Delivery, reply: Reply, verdict: Verdict) -> None:
    say = log.info if reply.is_success else log.warning
    say(  # never the URL: it may hold a token
        "webhook_attempt",
        endpoint=endpoint.public_id,
        delivery=delivery.public_id,
        attempt=delivery.attempts,
        outcome=OUTCOMES[verdict.state],
        status=reply.status,
        error=reply.error,
    )


async def _attempted(step: Awaitable[object]) -> None:
    """Await *step*; like the controller's loop, this one outlives any failure of one turn.

    An attempt that fails here comes again when its lease ends, and counts.
    """
    try:
        await step
    except Exception:
        log.exception("webhook_step_failed")
