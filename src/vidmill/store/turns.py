"""A fair semaphore: whoever waits longest is next.

Python's own lets a thread that has just let go take it again before those who wait have woken;
with more threads than connections some waited for seconds (measured).
"""

import threading
from collections import deque


class Turns:
    """So many may have one at the same time."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def acquire(self, timeout_s: float) -> bool:
        """Wait for one; False after *timeout_s*."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        if called.acquire(timeout=timeout_s):
            return True
        with self._lock:
            if called not in self._waiting:
                return True  # called in this very moment
            self._waiting.remove(called)
            return False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
