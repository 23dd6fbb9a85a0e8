"""Tickets and events of one machine, without a broker: datagrams in the data folder's `run/`."""

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vidmill.domain.ports import CancelRequest
from vidmill.queueing.hub import Hub, OnEvent, read_cancel, write_cancel, write_event
from vidmill.queueing.mailbox import Mailbox, Post
from vidmill.queueing.sender import TICKETS_PER_S, Allowance


def _folder(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


class LocalTickets:
    """A ticket is a datagram to every worker of the pool; they are few on one machine."""

    def __init__(self, url: str) -> None:
        self._folder = _folder(url) / "tickets"
        self._post = Post(self._folder)
        self._allowance = Allowance(TICKETS_PER_S)

    def publish(self, pool: str) -> None:
        if self._allowance.take(pool):
            self._post.send(pool.encode(), prefix=f"{pool}@")

    def listen(self, pools: Sequence[str], worker: str) -> "LocalInbox":
        return LocalInbox(Mailbox(self._folder, *(f"{pool}@{worker}" for pool in pools)))

    def close(self) -> None:
        self._post.close()


class LocalInbox:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def fileno(self) -> int:
        return self._mailbox.fileno()

    def take(self) -> list[str]:
        return [message.decode() for message in self._mailbox.take()]

    def pause(self) -> None:
        self._mailbox.hide()
        self._mailbox.take()

    def resume(self) -> None:
        self._mailbox.show()

    def close(self) -> None:
        self._mailbox.close()


class LocalBus:
    """Events go to every process that watches, cancel requests to every worker."""

    def __init__(self, url: str) -> None:
        self._folder = _folder(url)
        self._events = Post(self._folder / "events")
        self._cancels = Post(self._folder / "cancels")
        self._lock = threading.Lock()
        self._ear: _Ear | None = None

    def publish(self, job_id: str, event: Mapping[str, Any]) -> None:
        self._events.send(write_event(job_id, event).encode())

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        return self._started_hub().latest(job_id)

    def subscribe(self, job_id: str, on_event: OnEvent) -> Callable[[], None]:
        return self._started_hub().subscribe(job_id, on_event)

    def cancel(self, job_id: str, attempt: int) -> None:
        self._cancels.send(write_cancel(job_id, attempt).encode())

    def listen(self, worker: str) -> "CancelInbox":
        return CancelInbox(Mailbox(self._folder / "cancels", worker))

    def close(self) -> None:
        with self._lock:
            ear, self._ear = self._ear, None
        if ear:
            ear.close()
        self._events.close()
        self._cancels.close()

    def _started_hub(self) -> Hub:
        with self._lock:  # a worker never asks, so it has no thread for this
            self._ear = self._ear or _Ear(self._folder / "events")
            return self._ear.hub


class CancelInbox:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def fileno(self) -> int:
        return self._mailbox.fileno()

    def take(self) -> list[CancelRequest]:
        return [read_cancel(message) for message in self._mailbox.take()]

    def close(self) -> None:
        self._mailbox.close()


class _Ear:
    """The receiving thread."""

    def __init__(self, folder: Path) -> None:
        self.hub = Hub()
        self._is_closing = False
        self._mailbox = Mailbox(folder, secrets.token_hex(8))
        self._thread = threading.Thread(target=self._run, name="event-bus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_closing = True
        self._mailbox.wake()
        self._thread.join()
        self._mailbox.close()

    def _run(self) -> None:
        while not self._is_closing:
            message = self._mailbox.wait()
            if message:
                self.hub.deliver(message)
