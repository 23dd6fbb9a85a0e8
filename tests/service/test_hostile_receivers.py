"""The deliverer among receivers that do harm: real connections, real bytes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from tests.outboxes import endpoint_now, make_endpoint, outbox, record
from tests.receivers import (
    Behave,
    answering,
    babble,
    drip,
    dripping_head,
    flood,
    header_flood,
    interim_flood,
    receiving,
    reset,
    silence,
)
from vidmill.domain.webhook import DeliveryState
from vidmill.outbound.guard import Guard, resolve_host
from vidmill.outbound.sender import Sender
from vidmill.services.delivering import Courier, Deliverer
from vidmill.store.session import Database

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

HOSTILE: dict[str, Behave] = {
    "drip": drip,
    "dripping_head": dripping_head,
    "flood": flood,
    "header_flood": header_flood,
    "interim_flood": interim_flood,
    "silence": silence,
    "reset": reset,
    "babble": babble,
}
EVENTS = 60
DEADLINE_S = 3.0


def redirecting_to_itself(port: int) -> Behave:
    return answering(302, f"Location: http://127.0.0.1:{port}/hook")


def make_deliverer(db: Database) -> tuple[Deliverer, Counter[str]]:
    guard = Guard(allow=["127.0.0.1"], is_http_allowed=True, resolve=resolve_host)
    outcomes: Counter[str] = Counter()
    courier = Courier(
        db=db,
        send=Sender(guard, clock=time.time, deadline_s=DEADLINE_S).send,
        render=lambda _: b"{}",
        rng=random.Random(7),
        outcomes=outcomes,
    )
    return Deliverer(courier), outcomes


def test_honest_receiver_among_hostile_ones_gets_everything_before_they_are_done(
    db: Database,
) -> None:
    """Most hostile receivers hold their calls to the end of the deadline; the honest waits not."""
    with ExitStack() as stack:
        for name, behave in HOSTILE.items():
            receiver = stack.enter_context(receiving(behave))
            make_endpoint(db, tenant_id=2, url=receiver.url, description=name)
        circle = stack.enter_context(receiving(answering(500)))
        circle.behave = redirecting_to_itself(circle.port)
        looping = make_endpoint(db, tenant_id=2, url=circle.url)
        honest = stack.enter_context(receiving(answering(204)))
        endpoint = make_endpoint(db, url=honest.url)
        for number in range(EVENTS):
            record(db, f"bat_{number}")
            record(db, f"bat_{number}", tenant_id=2)
        took_s = asyncio.run(deliver_until_honest_is_done(db, honest.calls))
    assert {d.state for d in outbox(db, endpoint)} == {DeliveryState.DELIVERED}
    assert took_s < DEADLINE_S
    assert endpoint_now(db, looping).failing_since is not None
    assert all(call.line == "POST /hook HTTP/1.1" for call in circle.calls)


async def deliver_until_honest_is_done(db: Database, calls: Sequence[object]) -> float:
    deliverer, _ = make_deliverer(db)
    began = time.monotonic()
    while len(calls) < EVENTS:
        await deliverer.turn()
        await asyncio.sleep(0.005)
    took_s = time.monotonic() - began
    await deliverer.finish()
    return took_s
