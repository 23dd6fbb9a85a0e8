import threading
import time

from tests.builders import FakeClock
from tests.waiting import wait_until
from vidmill.queueing.sender import BACKLOG_MAX, Allowance, Sender


class Link:
    """Keeps what it is given; fails as often as *failures* says."""

    def __init__(self, sent: list[int], failures: list[bool]) -> None:
        self._sent = sent
        self._failures = failures

    def send(self, item: int) -> None:
        if self._failures and self._failures.pop(0):
            raise ConnectionResetError
        self._sent.append(item)

    def close(self) -> None:
        pass


def test_allowance_lets_a_burst_through_and_then_the_rate() -> None:
    clock = FakeClock()
    allowance = Allowance(10, clock)
    assert sum(allowance.take("gpu") for _ in range(100)) == 10
    clock.advance(0.5)
    assert sum(allowance.take("gpu") for _ in range(100)) == 5
    clock.advance(60)
    assert sum(allowance.take("gpu") for _ in range(100)) == 10


def test_allowance_is_of_one_key() -> None:
    allowance = Allowance(1, FakeClock())
    assert [allowance.take(key) for key in ("gpu", "gpu", "cpu")] == [True, False, True]


def test_slow_takers_use_up_no_more_than_the_rate() -> None:
    clock = FakeClock()
    allowance = Allowance(2, clock)
    taken = 0
    for _ in range(1000):  # ten seconds of asking a hundred times a second
        clock.advance(0.01)
        taken += allowance.take("gpu")
    assert 20 <= taken <= 22


def test_messages_go_out_in_order_and_close_waits_for_them() -> None:
    sent: list[int] = []
    sender = Sender(lambda: Link(sent, []), "sender")
    for item in range(100):
        sender.put(item)
    sender.close()
    assert sent == list(range(100))


def test_message_on_a_link_that_died_meanwhile_goes_out_on_a_new_one() -> None:
    sent: list[int] = []
    failures = [False, True]
    sender = Sender(lambda: Link(sent, failures), "sender")
    for item in (1, 2, 3):
        sender.put(item)
    sender.close()
    assert sent == [1, 2, 3]


def test_message_that_fails_on_a_new_link_is_lost_with_those_that_wait() -> None:
    sent: list[int] = []
    failures = [True]
    sender = Sender(lambda: Link(sent, failures), "sender")
    sender.put(1)
    assert wait_until(lambda: not failures, timeout_s=5)

    def has_next_one_come() -> bool:
        sender.put(2)
        return 2 in sent

    assert wait_until(has_next_one_come, timeout_s=5)
    sender.close()
    assert 1 not in sent


def test_backlog_of_a_slow_link_is_bounded_and_keeps_the_newest() -> None:
    may_connect = threading.Event()
    sent: list[int] = []

    def connect() -> Link:
        may_connect.wait(5)
        return Link(sent, [])

    sender = Sender(connect, "sender")
    for item in range(BACKLOG_MAX * 3):
        sender.put(item)
    may_connect.set()
    sender.close()
    assert len(sent) <= BACKLOG_MAX + 1
    assert sent[-1] == BACKLOG_MAX * 3 - 1


def test_putting_after_close_is_quiet() -> None:
    sent: list[int] = []
    sender = Sender(lambda: Link(sent, []), "sender")
    sender.close()
    began = time.monotonic()
    sender.put(1)
    sender.close()
    assert (sent, time.monotonic() - began < 1) == ([], True)
