"""The thread that speaks to a broker, so that whoever publishes never waits for one."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from vidmill.telemetry import get_logger

log = get_logger(__name__)

TICKETS_PER_S = 300
"""As many as there are GPUs to wake; the rest of a burst finds them awake."""

BACKLOG_MAX = 1000
"""Messages that wait for a slow broker; beyond, the oldest go. They are only hints."""

REST_S = 1.0
"""Wait before a broker that did not answer is asked again."""

FLUSH_S = 0.8
"""How long `close` lets what waits go out."""

JOIN_S = 1.1
"""How long `close` waits for a call that hangs: a little more than the calls' own timeout."""

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class Link(Protocol[Item_contra]):
    """A connection that one thread uses. Each call ends within about a second."""

    def send(self, item: Item_contra) -> None: ...

    def close(self) -> None: ...


class Sender(Generic[Item]):
    """Sends in order what it is given. Starts its thread at the first message."""

    def __init__(self, connect: Callable[[], Link[Item]], name: str) -> None:
        self._connect = connect
        self._name = name
        self._items: deque[Item] = deque(maxlen=BACKLOG_MAX)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._link: Link[Item] | None = None
        self._is_sending = False
        self._is_closing = False
        self._is_away = False

    def put(self, item: Item) -> None:
        """Have *item* sent soon, or lost. Never blocks, never raises."""
        with self._changed:
            if self._is_closing:
                return
            self._items.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._items and not self._is_sending, FLUSH_S)
            self._is_closing = True
            self._items.clear()
            self._changed.notify_all()
        if self._thread:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (item := self._next()) is not None:
            if not self._try(item, is_fresh=self._link is None):
                self._rest()
        self._drop_link()

    def _next(self) -> Item | None:
        with self._changed:
            self._is_sending = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._is_closing)
            self._is_sending = bool(self._items)
            return self._items.popleft() if self._items else None

    def _try(self, item: Item, *, is_fresh: bool) -> bool:
        """Send on the link there is; if that one has died meanwhile, once more on a new one."""
        try:
            self._link = self._link or self._connect()
            self._link.send(item)
        except Exception as error:  # noqa: BLE001  every transport has errors of its own
            self._drop_link()
            if not is_fresh and not self._is_closing:
                return self._try(item, is_fresh=True)
            if not self._is_away:
                log.warning("broker_away", sender=self._name, error=str(error))
            self._is_away = True
            return False
        self._is_away = False
        return True

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        try:
            if link:
                link.close()
        except Exception as error:  # noqa: BLE001  it was broken, and is not used again
            log.debug("close_failed", sender=self._name, error=repr(error))

    def _rest(self) -> None:
        """Forget what waits, for its readers have polled by then, and leave the broker alone."""
        with self._changed:
            self._items.clear()
            self._is_sending = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_closing, REST_S)


class Allowance:
    """So many at once, and so many a second after that, for each key."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> bool:
        """Use up one of *key*'s; return whether there was one left."""
        with self._lock:
            now = self._clock()
            left, since = self._left.get(key, (self._per_s, now))
            left = min(self._per_s, left + (now - since) * self._per_s)
            self._left[key] = (max(left - 1, left % 1), now)
            return left >= 1
