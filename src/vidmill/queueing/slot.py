"""Where a thread leaves things for a loop that selects."""

import contextlib
import os
import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")

KEPT_MAX = 1000
"""Items that wait for a loop which does not look; beyond, the oldest go. They are only hints."""


class Slot(Generic[Item]):
    """A queue with a descriptor, readable while something waits. The caller closes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[Item] = deque(maxlen=KEPT_MAX)
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_closed = False

    def fileno(self) -> int:
        return self._signal

    def put(self, item: Item) -> None:
        with self._lock:
            if not self._is_closed:
                self._items.append(item)
                os.eventfd_write(self._signal, 1)

    def take(self) -> list[Item]:
        """Return, without waiting, everything that came since the last call."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._signal)
            return items

    def close(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._signal)
