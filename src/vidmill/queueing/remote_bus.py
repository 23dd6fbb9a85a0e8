"""The event bus over any server with channels: one thread sends, one listens per purpose."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from vidmill.domain.ports import CancelRequest
from vidmill.queueing.hub import Hub, OnEvent, read_cancel, write_cancel, write_event
from vidmill.queueing.sender import Link, Sender
from vidmill.queueing.slot import Slot
from vidmill.telemetry import get_logger

log = get_logger(__name__)

EVENTS, CANCELS = "events", "cancels"

LOOK_S = 0.2
"""How long a listening thread waits before it asks whether it shall close."""

REST_S = 1.0
"""Wait before a server that is away is tried again."""

QUIET_S = 10.0
"""A connection silent for so long is asked for a sign of life."""

START_S = 1.0
"""How long `listen` and the first `subscribe` wait for the server to know of them."""

JOIN_S = 1.9


class Feed(Protocol):
    """A subscription that one thread uses."""

    def wait(self, timeout_s: float) -> Iterable[str]:
        """Return what came, at the latest after *timeout_s*."""
        ...

    def probe(self) -> None:
        """Raise if the server does not answer."""
        ...

    def close(self) -> None: ...


class Server(Protocol):
    def link(self) -> Link[tuple[str, str]]:
        """Connect for sending messages `(purpose, text)`."""
        ...

    def feed(self, purpose: str) -> Feed:
        """Connect and subscribe."""
        ...


class RemoteBus:
    """Nothing is kept for who was away: the row heals what was missed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sender: Sender[tuple[str, str]] = Sender(server.link, "event-sender")
        self._lock = threading.Lock()
        self._hub = Hub()
        self._ear: _Ear | None = None

    def publish(self, job_id: str, event: Mapping[str, Any]) -> None:
        self._sender.put((EVENTS, write_event(job_id, event)))

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        return self._listening_hub().latest(job_id)

    def subscribe(self, job_id: str, on_event: OnEvent) -> Callable[[], None]:
        return self._listening_hub().subscribe(job_id, on_event)

    def cancel(self, job_id: str, attempt: int) -> None:
        self._sender.put((CANCELS, write_cancel(job_id, attempt)))

    def listen(self, worker: str) -> "CancelInbox":
        return CancelInbox(self._server, worker)

    def close(self) -> None:
        with self._lock:
            ear, self._ear = self._ear, None
        if ear:
            ear.close()
        self._sender.close()

    def _listening_hub(self) -> Hub:
        with self._lock:  # a worker never asks, so it has no thread for this
            self._ear = self._ear or _Ear(
                lambda: self._server.feed(EVENTS), self._hub.deliver, "event-bus"
            )
        return self._hub


class CancelInbox:
    def __init__(self, server: Server, worker: str) -> None:
        self._slot: Slot[CancelRequest] = Slot()
        self._ear = _Ear(
            lambda: server.feed(CANCELS),
            lambda message: self._slot.put(read_cancel(message)),
            f"cancels-{worker}",
        )

    def fileno(self) -> int:
        return self._slot.fileno()

    def take(self) -> list[CancelRequest]:
        return self._slot.take()

    def close(self) -> None:
        self._ear.close()
        self._slot.close()


class _Ear:
    """A receiving thread, which connects anew for as long as it takes."""

    def __init__(
        self, connect: Callable[[], Feed], deliver: Callable[[str], None], name: str
    ) -> None:
        self._connect = connect
        self._deliver = deliver
        self._closing = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._tried.wait(START_S)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        is_away = False
        while not self._closing.is_set():
            try:
                self._hear()
            except Exception as error:  # noqa: BLE001  each client library has errors of its own
                if not is_away:
                    log.warning("event_server_away", ear=self._thread.name, error=str(error))
                is_away = True
                self._tried.set()
                self._closing.wait(REST_S)
            else:
                is_away = False

    def _hear(self) -> None:
        """Listen on one connection until it breaks or `close`."""
        feed = self._connect()
        self._tried.set()
        heard_at = time.monotonic()
        try:
            while not self._closing.is_set():
                messages = list(feed.wait(LOOK_S))
                for message in messages:
                    self._deliver(message)
                if messages:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > QUIET_S:
                    feed.probe()
                    heard_at = time.monotonic()
        finally:
            feed.close()
