"""Ports that keep what they are told, for tests of whoever does the telling."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vidmill.domain.ports import CancelRequest, Inbox, TicketInbox


class RecordingBus:
    """An `EventBus` nobody listens to."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.cancels: list[tuple[str, int]] = []

    def publish(self, job_id: str, event: Mapping[str, Any]) -> None:
        self.events.append((job_id, event))

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        return next((event for key, event in reversed(self.events) if key == job_id), None)

    def subscribe(
        self, job_id: str, on_event: Callable[[Mapping[str, Any]], None]
    ) -> Callable[[], None]:
        raise AssertionError(f"{on_event} listens to {job_id}; this bus only sends")

    def cancel(self, job_id: str, attempt: int) -> None:
        self.cancels.append((job_id, attempt))

    def listen(self, worker: str) -> Inbox[CancelRequest]:
        raise AssertionError(f"{worker} listens; this bus only sends")

    def close(self) -> None:
        """Nothing is open."""


class RecordingTickets:
    """A `TicketSource` nobody listens to."""

    def __init__(self) -> None:
        self.pools: list[str] = []

    def publish(self, pool: str) -> None:
        self.pools.append(pool)

    def listen(self, pools: Sequence[str], worker: str) -> TicketInbox:
        raise AssertionError(f"{worker} listens to {pools}; these tickets only go out")

    def close(self) -> None:
        """Nothing is open."""
