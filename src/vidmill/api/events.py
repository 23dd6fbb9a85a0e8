"""Server-sent events of one task (WHATWG HTML, "Server-sent events").

No log of events is kept: an event says how the task stands, so whoever reconnects is told how it
stands now, unless that is what he heard last. `id` is `attempt.seq` and only ever grows.
"""

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from vidmill.api.waiting import REREAD_S, Follower
from vidmill.domain.errors import TaskNotFound
from vidmill.domain.job import JobState
from vidmill.services.tasks import SEQ_FINAL, TaskView

HEARTBEAT_S = 15.0
"""Proxies cut connections that are silent for 30 to 60 s."""

RETRY_MS = 2000

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Doc = Callable[[TaskView], dict[str, Any]]


def parse_event_id(text: str | None) -> tuple[int, int]:
    """Return the key in a `Last-Event-ID`; one that is not ours counts as none."""
    attempt, dot, seq = (text or "").partition(".")
    is_ours = dot and attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit()
    return (int(attempt[:9]), int(seq[:9])) if is_ours else (-1, -1)


def has_heard_all(view: TaskView, last: tuple[int, int]) -> bool:
    """Whether nothing will ever follow the event *last*."""
    return view.is_over and last[1] == SEQ_FINAL


def event_type(view: TaskView) -> str:
    if view.job.state is JobState.RUNNING and view.progress > 0:
        return "t2v.task.progress"
    if view.job.state is JobState.DELAYED:
        return "t2v.task.retrying"
    return f"t2v.task.{view.status}"


def frame(view: TaskView, doc: dict[str, Any], *, timestamp: str, retry_ms: int | None) -> bytes:
    """Return one event. `retry` rides in a real event: alone in a block it confuses readers."""
    attempt, seq = view.order_key
    envelope = {"seq": seq, "type": event_type(view), "timestamp": timestamp, "data": doc}
    retry = f"retry: {retry_ms}\n" if retry_ms else ""
    data = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
    text = f"{retry}id: {attempt}.{seq}\nevent: {event_type(view)}\ndata: {data}\n\n"
    return text.encode()


async def stream(
    follower: Follower,
    view: TaskView,
    *,
    last: tuple[int, int],
    doc: Doc,
    timestamp: Callable[[], str],
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncIterator[bytes]:
    """Yield the state, then each change of it that comes after *last*, until the task is over."""
    retry_ms: int | None = RETRY_MS
    spoke_at = time.monotonic()
    with follower:
        while True:
            if view.order_key > last:
                yield frame(view, doc(view), timestamp=timestamp(), retry_ms=retry_ms)
                last, retry_ms, spoke_at = view.order_key, None, time.monotonic()
            elif time.monotonic() - spoke_at >= heartbeat_s:
                yield b": heartbeat\n\n"
                spoke_at = time.monotonic()
            if view.is_over:
                return
            try:
                view = await follower.next(min(REREAD_S, heartbeat_s))
            except TaskNotFound:  # erased meanwhile
                return
