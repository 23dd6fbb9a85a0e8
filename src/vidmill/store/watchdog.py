"""Ends database calls that hang: a peer that accepts and never answers would hold a thread long.

A server's own limits do not help when its answers are lost on the way, and the driver waits on its
socket without one. So a thread looks at every call under way and shuts the socket of one that is
over its time; the call then fails as with any lost connection.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

LOOK_S = 0.5
"""How often the thread looks; a call is ended at most this much too late."""


class Watchdog:
    """One per process and pool; its thread starts with the first call."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: dict[int, float] = {}
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, fileno: int) -> Iterator[None]:
        """Watch over the call on the socket *fileno*, which stays open for the block."""
        if self._thread is None:
            self._start()
        self._calls[fileno] = time.monotonic() + self._limit_s
        try:
            yield
        finally:
            with self._lock:  # the number may be another socket's soon
                self._calls.pop(fileno, None)

    def close(self) -> None:
        self._is_closed.set()
        if self._thread:
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="db-watchdog", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._is_closed.wait(LOOK_S):
            now = time.monotonic()
            with self._lock:
                for fileno, deadline in list(self._calls.items()):
                    if deadline < now:
                        _shut(fileno)


def _shut(fileno: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fileno)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
