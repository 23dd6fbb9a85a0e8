import os
import signal
import weakref

import pytest

from vidmill.worker.loop import EventLoop


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_timers_fire_in_order_and_only_when_due() -> None:
    clock, fired = Clock(), list[str]()
    loop = EventLoop(clock=clock)
    loop.after(2, lambda: fired.append("late"))
    loop.after(1, lambda: fired.append("early"))
    loop.after(50, lambda: fired.append("never"))
    clock.now += 3
    loop.run_once()
    assert fired == ["early", "late"]


def test_cancelled_timer_does_not_fire() -> None:
    clock, fired = Clock(), list[str]()
    loop = EventLoop(clock=clock)
    timer = loop.after(1, lambda: fired.append("cancelled"))
    loop.after(1, lambda: fired.append("kept"))
    timer.cancel()
    clock.now += 1
    loop.run_once()
    assert fired == ["kept"]


def test_repeated_call_that_takes_longer_than_its_period_leaves_room_for_others() -> None:
    clock, ticks = Clock(), list[float]()
    loop = EventLoop(clock=clock)

    def slow() -> None:
        ticks.append(clock.now)
        clock.now += 10

    loop.every(lambda: 1.0, slow)
    clock.now += 1
    loop.run_once()
    loop.run_once()
    assert ticks == [101.0, 111.0]


def test_readable_descriptor_is_called_until_forgotten() -> None:
    loop, heard = EventLoop(), list[bytes]()
    reader, writer = os.pipe()
    loop.watch(reader, lambda: heard.append(os.read(reader, 10)))
    os.write(writer, b"one")
    loop.run_once()
    loop.forget(reader)
    loop.forget(reader)
    os.write(writer, b"two")
    loop.after(0, lambda: None)
    loop.run_once()
    assert heard == [b"one"]
    os.close(reader)
    os.close(writer)


def test_descriptor_closed_by_an_earlier_call_of_the_same_turn_is_skipped() -> None:
    loop, heard = EventLoop(), list[int]()
    pipes = [os.pipe() for _ in range(2)]
    for (reader, writer), (other, _) in zip(pipes, reversed(pipes), strict=True):

        def on_readable(me: int = reader, other: int = other) -> None:
            heard.append(me)
            loop.forget(other)

        loop.watch(reader, on_readable)
        os.write(writer, b"x")
    loop.run_once()
    assert len(heard) == 1
    for pipe in pipes:
        for end in pipe:
            os.close(end)


@pytest.mark.parametrize("count", [1, 3])
def test_each_signal_is_told_once_and_wakes_the_sleeper(count: int) -> None:
    loop, told = EventLoop(), list[str]()
    before = signal.getsignal(signal.SIGUSR1)
    loop.on_signals([signal.SIGUSR1], lambda: told.append("signal"))
    for _ in range(count):
        os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_once()
    loop.close()
    signal.signal(signal.SIGUSR1, before)
    assert told == ["signal"] * count


def test_cancelled_timer_holds_on_to_nothing() -> None:
    loop, held = EventLoop(clock=Clock()), {"a clip"}
    alive = weakref.ref(held)
    timer = loop.after(1800, held.clear)
    del held
    timer.cancel()
    assert alive() is None
