"""What every ticket source keeps, over the whole table. A broker joins by a line in `SOURCES`.

Kafka is librdkafka's mock cluster; `rediss` and `amqps` are the code of `redis` and `amqp`.
"""

import select
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import brokers
from tests.waiting import wait_until
from vidmill.domain.ports import TicketInbox, TicketSource
from vidmill.queueing import TICKET_SOURCES, open_tickets

SOURCES: Mapping[str, brokers.Opener] = {
    "local": brokers.local,
    "redis": brokers.shared_redis,
    "amqp": brokers.shared_rabbitmq,
    "confluentkafka": brokers.mock_kafka,
}
TLS_TWINS = {"rediss": "redis", "amqps": "amqp"}
REMOTE = sorted(set(SOURCES) - {"local"})

WAIT_S = 20.0
"""A Kafka consumer group takes seconds to gather."""

SETTLE_S = 0.8
"""librdkafka's mock cluster looks for new messages every half second."""

QUIET_S = 0.3

CLOSE_S = 2.5
"""The promise is 2 s; the rest is the machine's."""


@pytest.fixture(params=sorted(SOURCES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with SOURCES[request.param](tmp_path) as found:
        yield found


@pytest.fixture
def source(url: str) -> Iterator[TicketSource]:
    tickets = open_tickets(url)
    yield tickets
    tickets.close()


def gather(inbox: TicketInbox, count: int = 10_000, timeout_s: float = WAIT_S) -> list[str]:
    """Take until *count* tickets came or none for *timeout_s*."""
    found: list[str] = []
    while len(found) < count and select.select([inbox], [], [], timeout_s)[0]:
        found += inbox.take()
    return found


def opened(source: TicketSource, *pools: str, worker: str = "w1") -> TicketInbox:
    """Return an inbox that is known to listen to all *pools*, and empty."""
    inbox = source.listen(pools, worker)
    for pool in pools:
        assert wait_until(lambda name=pool: asked(source, inbox, name), timeout_s=WAIT_S)  # type: ignore[misc]
    gather(inbox, timeout_s=SETTLE_S)
    return inbox


def asked(source: TicketSource, inbox: TicketInbox, pool: str) -> bool:
    source.publish(pool)
    return pool in gather(inbox, 1, timeout_s=1.0)


def ticket_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "ticket" in thread.name]


def test_every_scheme_is_under_this_contract() -> None:
    assert {TLS_TWINS.get(scheme, scheme) for scheme in TICKET_SOURCES} == set(SOURCES)
    for twin, scheme in TLS_TWINS.items():
        assert TICKET_SOURCES[twin] == TICKET_SOURCES[scheme]


def test_ticket_wakes_a_worker_that_selects(source: TicketSource) -> None:
    inbox = opened(source, "gpu")
    source.publish("gpu")
    assert gather(inbox, 1) == ["gpu"]
    inbox.close()


def test_worker_of_several_pools_is_told_which_has_work(source: TicketSource) -> None:
    inbox = opened(source, "gpu", "cpu")
    source.publish("cpu")
    assert gather(inbox, 1) == ["cpu"]
    source.publish("gpu")
    assert gather(inbox, 1) == ["gpu"]
    inbox.close()


def test_ticket_from_another_process_s_source_arrives(source: TicketSource, url: str) -> None:
    inbox, other = opened(source, "gpu"), open_tickets(url)
    other.publish("gpu")
    other.close()
    assert gather(inbox, 1) == ["gpu"]
    inbox.close()


def test_ticket_of_another_pool_wakes_nobody(source: TicketSource) -> None:
    inbox = opened(source, "gpu")
    source.publish("cpu")
    source.publish("gpu2")
    assert gather(inbox, timeout_s=QUIET_S) == []
    inbox.close()


def test_taken_tickets_are_gone(source: TicketSource) -> None:
    inbox = opened(source, "gpu")
    for _ in range(3):
        source.publish("gpu")
    assert gather(inbox, 3) == ["gpu"] * 3
    assert inbox.take() == []
    assert gather(inbox, timeout_s=QUIET_S) == []
    inbox.close()


def test_publishing_without_a_worker_is_quiet(source: TicketSource) -> None:
    source.publish("gpu")


def test_publishing_to_a_worker_that_never_reads_does_not_block(source: TicketSource) -> None:
    inbox = opened(source, "gpu")
    began = time.monotonic()
    for _ in range(2000):
        source.publish("gpu")
    assert time.monotonic() - began < 1.0
    assert "gpu" in gather(inbox, 1)
    inbox.close()


def test_burst_of_ten_thousand_sends_a_few_hundred(source: TicketSource) -> None:
    inbox = opened(source, "gpu")
    began = time.monotonic()
    for _ in range(10_000):
        source.publish("gpu")
    spent_s = time.monotonic() - began
    assert 0 < len(gather(inbox, timeout_s=1.0)) <= 300 * (1 + spent_s)
    inbox.close()


def test_closed_inbox_gets_no_more(source: TicketSource) -> None:
    opened(source, "gpu", worker="w1").close()
    here = opened(source, "gpu", worker="w2")
    source.publish("gpu")
    assert gather(here, 1) == ["gpu"]
    here.close()


def test_paused_worker_leaves_the_tickets_to_another(source: TicketSource) -> None:
    busy = opened(source, "gpu", worker="w1")
    busy.pause()
    idle = opened(source, "gpu", worker="w2")
    for _ in range(3):
        source.publish("gpu")
    assert gather(idle, 3) == ["gpu"] * 3
    assert busy.take() == []
    idle.close()
    busy.resume()
    assert wait_until(lambda: asked(source, busy, "gpu"), timeout_s=WAIT_S)
    busy.close()


def test_pausing_and_resuming_twice_is_once(source: TicketSource) -> None:
    inbox = opened(source, "gpu")
    for turn in (inbox.pause, inbox.pause, inbox.resume, inbox.resume):
        turn()
    assert wait_until(lambda: asked(source, inbox, "gpu"), timeout_s=WAIT_S)
    inbox.close()


def test_no_thread_outlives_what_it_served(url: str) -> None:
    before = set(threading.enumerate())
    source = open_tickets(url)
    opened(source, "gpu").close()
    source.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("scheme", REMOTE)
def test_frozen_broker_delays_neither_publishing_nor_closing(scheme: str) -> None:
    before = set(threading.enumerate())
    with brokers.frozen_server() as port:
        source = open_tickets(f"{scheme}://127.0.0.1:{port}/")
        inbox = source.listen(["gpu"], "w1")
        began = time.monotonic()
        for _ in range(1000):
            source.publish("gpu")
        assert time.monotonic() - began < 0.5
        for close in (inbox.close, source.close):
            began = time.monotonic()
            close()
            assert time.monotonic() - began < CLOSE_S
    assert wait_until(lambda: set(threading.enumerate()) <= before, timeout_s=CLOSE_S)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_broker_that_freezes_under_its_users_lets_them_go(scheme: str, tmp_path: Path) -> None:
    with SOURCES[scheme](tmp_path) as real, brokers.behind_proxy(real) as (url, proxy):
        source = open_tickets(url)
        inbox = opened(source, "gpu")
        proxy.freeze()
        began = time.monotonic()
        for _ in range(100):
            source.publish("gpu")
        assert time.monotonic() - began < 0.5
        for close in (inbox.close, source.close):
            began = time.monotonic()
            close()
            assert time.monotonic() - began < CLOSE_S
        assert wait_until(lambda: not ticket_threads(), timeout_s=CLOSE_S)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_tickets_come_again_when_a_frozen_broker_goes_on(scheme: str, tmp_path: Path) -> None:
    with SOURCES[scheme](tmp_path) as real, brokers.behind_proxy(real) as (url, proxy):
        source = open_tickets(url)
        inbox = opened(source, "gpu")
        proxy.freeze()
        source.publish("gpu")
        assert gather(inbox, 1, timeout_s=2.0) == []
        proxy.thaw()
        assert wait_until(lambda: asked(source, inbox, "gpu"), timeout_s=WAIT_S)
        inbox.close()
        source.close()


@pytest.mark.parametrize("scheme", REMOTE)
def test_absent_broker_is_quiet(scheme: str) -> None:
    source = open_tickets(f"{scheme}://127.0.0.1:{brokers.free_port()}/")
    inbox = source.listen(["gpu"], "w1")
    source.publish("gpu")
    inbox.close()
    source.close()


def test_ticket_arrives_after_the_broker_was_killed_and_wiped() -> None:
    with brokers.private_redis() as server:
        source = open_tickets(server.url)
        inbox = opened(source, "gpu")
        for _ in range(2):
            server.kill()
            source.publish("gpu")
            server.start()
            assert wait_until(lambda: asked(source, inbox, "gpu"), timeout_s=WAIT_S)
        inbox.close()
        source.close()


def test_queue_deleted_under_its_worker_is_declared_again(tmp_path: Path) -> None:
    with brokers.shared_rabbitmq(tmp_path) as url:
        source = open_tickets(url)
        inbox = opened(source, "gpu")
        brokers.delete_queue(url, "gpu")
        assert wait_until(lambda: asked(source, inbox, "gpu"), timeout_s=WAIT_S)
        inbox.close()
        source.close()


def test_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match="local"):
        open_tickets("carrier-pigeon://loft")
