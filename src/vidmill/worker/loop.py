"""One synchronous event loop: file descriptors, timers, signals; it sleeps when nothing is due."""

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

LONGEST_SLEEP_S = 3600.0


def _nothing() -> None: ...


@dataclass(order=True)
class Timer:
    """A call at a time. `cancel` it when it is no longer wanted."""

    when: float
    order: int
    action: Callable[[], None] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Never fire; it stays in the loop until its time, but holds on to nothing."""
        self.is_cancelled, self.action = True, _nothing


class EventLoop:
    """Calls back from `run_once`, in the thread that calls it.

    Args:
        clock: Monotonic seconds; handed in by tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._signals: socket.socket | None = None

    def watch(self, fileno: int, on_readable: Callable[[], None]) -> None:
        """Call *on_readable* whenever the descriptor is, until `forget`."""
        self._selector.register(fileno, selectors.EVENT_READ, on_readable)

    def forget(self, fileno: int) -> None:
        """Watch the descriptor no more; call it before closing it."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fileno)

    def after(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Call *action* once, *delay_s* from now."""
        timer = Timer(self.now() + delay_s, next(self._order), action)
        heapq.heappush(self._timers, timer)
        return timer

    def every(self, period_s: Callable[[], float], action: Callable[[], None]) -> None:
        """Call *action* again and again; *period_s* is asked for each wait."""

        def again() -> None:
            self.after(period_s(), again)
            action()

        self.after(period_s(), again)

    def on_signals(self, numbers: Iterable[int], action: Callable[[], None]) -> None:
        """Call *action* once per signal received. Main thread only."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        self._signals = writer  # kept open for as long as the loop

        def on_readable() -> None:
            for _ in reader.recv(64):
                action()

        self.watch(reader.fileno(), on_readable)

    def run_once(self) -> None:
        """Wait for the next thing to happen, and handle it."""
        for key, _ in self._selector.select(self._sleep_s()):
            if key.fd in self._selector.get_map():  # an earlier call may have closed it
                key.data()
        self._run_timers()

    def close(self) -> None:
        if self._signals:
            signal.set_wakeup_fd(-1)
            self._signals.close()
        self._selector.close()

    def _sleep_s(self) -> float:
        if not self._timers:
            return LONGEST_SLEEP_S
        return min(LONGEST_SLEEP_S, max(0.0, self._timers[0].when - self.now()))

    def _run_timers(self) -> None:
        now = self.now()  # once: a timer that re-arms itself late must not keep us here
        while self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                timer.action()
