"""What every event bus keeps, over the whole table. A broker joins by a line in `BUSES`.

`rediss` is the code of `redis`.
"""

import queue
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import brokers
from tests.waiting import wait_until
from vidmill.domain.ports import CancelRequest, EventBus
from vidmill.queueing import EVENT_BUSES, open_bus

BUSES: Mapping[str, brokers.Opener] = {
    "local": brokers.local,
    "redis": brokers.shared_redis,
    "postgresql": brokers.shared_postgres,
}
REMOTE = sorted(set(BUSES) - {"local"})

WAIT_S = 5.0
CLOSE_S = 4.0
"""Four closings that each promise 2 s at most, and in fact take less."""


def running(progress: float, attempt: int = 1) -> dict[str, Any]:
    return {
        "attempt": attempt,
        "state": "running",
        "phase": "denoising",
        "progress": progress,
    }


@pytest.fixture(params=sorted(BUSES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with BUSES[request.param](tmp_path) as found:
        yield found


@pytest.fixture
def bus(url: str) -> Iterator[EventBus]:
    opened = open_bus(url)
    yield opened
    opened.close()


@pytest.fixture
def worker(url: str) -> Iterator[EventBus]:
    """The same bus as another process opens it."""
    opened = open_bus(url)
    yield opened
    opened.close()


def watch(bus: EventBus, job_id: str) -> "tuple[queue.Queue[Any], Callable[[], None]]":
    seen: queue.Queue[Any] = queue.Queue()
    return seen, bus.subscribe(job_id, seen.put)


def test_event_reaches_a_subscriber_of_its_task_only(bus: EventBus, worker: EventBus) -> None:
    mine, _ = watch(bus, "t2v_1")
    others, _ = watch(bus, "t2v_2")
    worker.publish("t2v_1", running(0.5))
    assert mine.get(timeout=WAIT_S) == running(0.5)
    assert others.empty()


def test_events_come_in_order(bus: EventBus, worker: EventBus) -> None:
    seen, _ = watch(bus, "t2v_1")
    for step in range(50):
        worker.publish("t2v_1", running(step / 100))
        assert seen.get(timeout=WAIT_S)["progress"] == step / 100


def test_latest_is_the_newest_event_of_a_running_task(bus: EventBus, worker: EventBus) -> None:
    seen, _ = watch(bus, "t2v_1")
    worker.publish("t2v_1", running(0.1))
    worker.publish("t2v_1", running(0.2))
    assert [seen.get(timeout=WAIT_S)["progress"] for _ in range(2)] == [0.1, 0.2]
    assert bus.latest("t2v_1") == running(0.2)
    assert bus.latest("t2v_2") is None


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "delayed", "queued"])
def test_task_that_stopped_running_has_no_latest(
    bus: EventBus, worker: EventBus, state: str
) -> None:
    seen, _ = watch(bus, "t2v_1")
    worker.publish("t2v_1", running(0.1))
    worker.publish("t2v_1", {**running(1.0), "state": state})
    assert [seen.get(timeout=WAIT_S)["state"] for _ in range(2)] == ["running", state]
    assert bus.latest("t2v_1") is None


def test_unsubscribed_watcher_hears_no_more(bus: EventBus, worker: EventBus) -> None:
    left, leave = watch(bus, "t2v_1")
    stayed, _ = watch(bus, "t2v_1")
    leave()
    leave()
    worker.publish("t2v_1", running(0.1))
    assert stayed.get(timeout=WAIT_S) == running(0.1)
    assert left.empty()


def test_watcher_that_raises_does_not_deafen_the_others(bus: EventBus, worker: EventBus) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a defect of a watcher")

    bus.subscribe("t2v_1", broken)
    seen, _ = watch(bus, "t2v_1")
    worker.publish("t2v_1", running(0.1))
    worker.publish("t2v_1", running(0.2))
    assert [seen.get(timeout=WAIT_S)["progress"] for _ in range(2)] == [0.1, 0.2]


def test_cancel_request_reaches_every_worker(bus: EventBus, worker: EventBus) -> None:
    inboxes = [worker.listen("w1"), worker.listen("w2")]
    bus.cancel("t2v_1", 3)
    for inbox in inboxes:
        assert select.select([inbox], [], [], WAIT_S)[0]
        assert inbox.take() == [CancelRequest("t2v_1", 3)]
        assert inbox.take() == []
        inbox.close()


def test_publishing_to_nobody_is_quiet(worker: EventBus) -> None:
    worker.publish("t2v_1", running(0.1))
    worker.cancel("t2v_1", 1)


def test_publishing_to_a_watcher_that_hangs_does_not_block(bus: EventBus, worker: EventBus) -> None:
    release = threading.Event()

    def hang(_: object) -> None:
        release.wait(WAIT_S)

    bus.subscribe("t2v_1", hang)
    for step in range(2000):
        worker.publish("t2v_1", running(step / 2000))
    assert not release.is_set()
    release.set()


def test_closing_ends_every_thread_with_watchers_on_it(url: str) -> None:
    before = set(threading.enumerate())
    opened = open_bus(url)
    watch(opened, "t2v_1")
    opened.publish("t2v_1", running(0.1))
    opened.listen("w1").close()
    opened.close()
    assert set(threading.enumerate()) <= before


def test_every_scheme_is_under_this_contract() -> None:
    assert set(EVENT_BUSES) - {"rediss"} == set(BUSES)
    assert EVENT_BUSES["rediss"] == EVENT_BUSES["redis"]


def test_event_written_in_any_language_arrives_as_it_was(bus: EventBus, worker: EventBus) -> None:
    seen, _ = watch(bus, "t2v_1")
    event = {**running(0.5), "detail": "落ち葉 – l'été \u2028"}
    worker.publish("t2v_1", event)
    assert seen.get(timeout=WAIT_S) == event


def test_event_too_long_for_a_channel_is_dropped_and_the_next_one_comes(
    bus: EventBus, worker: EventBus
) -> None:
    seen, _ = watch(bus, "t2v_1")
    worker.publish("t2v_1", {**running(0.1), "detail": "x" * 100_000})
    worker.publish("t2v_1", running(0.2))
    assert wait_until(lambda: bus.latest("t2v_1") == running(0.2), timeout_s=WAIT_S)
    assert seen.qsize() <= 2


@pytest.mark.parametrize("scheme", REMOTE)
def test_frozen_server_delays_neither_publishing_nor_closing(scheme: str) -> None:
    before = set(threading.enumerate())
    with brokers.frozen_server() as port:
        bus = open_bus(f"{scheme}://127.0.0.1:{port}/0")
        began = time.monotonic()
        for step in range(1000):
            bus.publish("t2v_1", running(step / 1000))
            bus.cancel("t2v_1", 1)
        assert time.monotonic() - began < 0.5
        inbox = bus.listen("w1")
        watch(bus, "t2v_1")
        began = time.monotonic()
        inbox.close()
        bus.close()
        assert time.monotonic() - began < CLOSE_S
    assert wait_until(lambda: set(threading.enumerate()) <= before, timeout_s=CLOSE_S)


def test_events_and_cancels_come_again_after_the_server_was_killed() -> None:
    with brokers.private_redis() as server:
        bus = open_bus(server.url)
        seen, _ = watch(bus, "t2v_1")
        inbox = bus.listen("w1")
        server.kill()
        server.start()

        def have_both_arrived() -> bool:
            bus.publish("t2v_1", running(0.3))
            bus.cancel("t2v_1", 1)
            return bool(select.select([inbox], [], [], 0.2)[0]) and not seen.empty()

        assert wait_until(have_both_arrived, timeout_s=15)
        inbox.close()
        bus.close()
