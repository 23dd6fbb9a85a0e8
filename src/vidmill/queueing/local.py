"""Tickets and events of one machine, without a broker: datagrams in the data folder's `run/`."""

import json
import secrets
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vidmill.domain.job import JobState
from vidmill.domain.ports import CancelRequest
from vidmill.queueing.mailbox import Mailbox, Post
from vidmill.telemetry import get_logger

log = get_logger(__name__)

LATEST_MAX = 10_000
"""Running tasks whose newest event is remembered; far above what one machine runs at once."""

OnEvent = Callable[[Mapping[str, Any]], None]


def _folder(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


class LocalTickets:
    """A ticket is an empty datagram to every worker of the pool; they are few on one machine."""

    def __init__(self, url: str) -> None:
        self._folder = _folder(url) / "tickets"
        self._post = Post(self._folder)

    def publish(self, pool: str) -> None:
        self._post.send(b"", prefix=f"{pool}@")

    def listen(self, pool: str, worker: str) -> "TicketInbox":
        return TicketInbox(Mailbox(self._folder, f"{pool}@{worker}"), pool)

    def close(self) -> None:
        self._post.close()


class TicketInbox:
    def __init__(self, mailbox: Mailbox, pool: str) -> None:
        self._mailbox = mailbox
        self._pool = pool

    def fileno(self) -> int:
        return self._mailbox.fileno()

    def take(self) -> list[str]:
        return [self._pool for _ in self._mailbox.take()]

    def close(self) -> None:
        self._mailbox.close()


class LocalBus:
    """Events go to every process that watches, cancel requests to every worker."""

    def __init__(self, url: str) -> None:
        self._folder = _folder(url)
        self._events = Post(self._folder / "events")
        self._cancels = Post(self._folder / "cancels")
        self._lock = threading.Lock()
        self._hub: _Hub | None = None

    def publish(self, job_id: str, event: Mapping[str, Any]) -> None:
        self._events.send(json.dumps([job_id, event]).encode())

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        return self._started_hub().latest(job_id)

    def subscribe(self, job_id: str, on_event: OnEvent) -> Callable[[], None]:
        return self._started_hub().subscribe(job_id, on_event)

    def cancel(self, job_id: str, attempt: int) -> None:
        self._cancels.send(json.dumps([job_id, attempt]).encode())

    def listen(self, worker: str) -> "CancelInbox":
        return CancelInbox(Mailbox(self._folder / "cancels", worker))

    def close(self) -> None:
        with self._lock:
            hub, self._hub = self._hub, None
        if hub:
            hub.close()
        self._events.close()
        self._cancels.close()

    def _started_hub(self) -> "_Hub":
        with self._lock:  # a worker never asks, so it has no thread for this
            self._hub = self._hub or _Hub(self._folder / "events")
            return self._hub


class CancelInbox:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def fileno(self) -> int:
        return self._mailbox.fileno()

    def take(self) -> list[CancelRequest]:
        return [CancelRequest(*json.loads(message)) for message in self._mailbox.take()]

    def close(self) -> None:
        self._mailbox.close()


class _Hub:
    """The receiving thread: keeps the newest event of each running task and calls who waits."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._watchers: defaultdict[str, list[OnEvent]] = defaultdict(list)
        self._is_closing = False
        self._mailbox = Mailbox(folder, secrets.token_hex(8))
        self._thread = threading.Thread(target=self._run, name="event-bus", daemon=True)
        self._thread.start()

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        with self._lock:
            return self._latest.get(job_id)

    def subscribe(self, job_id: str, on_event: OnEvent) -> Callable[[], None]:
        with self._lock:
            self._watchers[job_id].append(on_event)
        return lambda: self._unsubscribe(job_id, on_event)

    def close(self) -> None:
        self._is_closing = True
        self._mailbox.wake()
        self._thread.join()
        self._mailbox.close()

    def _unsubscribe(self, job_id: str, on_event: OnEvent) -> None:
        with self._lock:
            others = [watcher for watcher in self._watchers[job_id] if watcher is not on_event]
            self._watchers[job_id] = others
            if not others:
                del self._watchers[job_id]

    def _run(self) -> None:
        while not self._is_closing:
            message = self._mailbox.wait()
            if message:
                self._deliver(*json.loads(message))

    def _deliver(self, job_id: str, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._remember(job_id, event)
            watchers = list(self._watchers.get(job_id, ()))
        for on_event in watchers:
            try:
                on_event(event)
            except Exception:  # one watcher's defect must not deafen the others
                log.exception("event_watcher_failed", job_id=job_id)

    def _remember(self, job_id: str, event: Mapping[str, Any]) -> None:
        self._latest.pop(job_id, None)
        if event.get("state") == JobState.RUNNING:
            self._latest[job_id] = event
        if len(self._latest) > LATEST_MAX:
            self._latest.popitem(last=False)
