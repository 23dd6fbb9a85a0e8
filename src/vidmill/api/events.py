"""What news of a task looks like, and how it is told by server-sent events (WHATWG HTML).

No log of events is kept: an event says how the task stands, so whoever reconnects is told how it
stands now, unless that is what he heard last. `id` is `attempt.seq` and only ever grows.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vidmill.api.following import Watcher
from vidmill.domain.errors import TaskNotFound
from vidmill.domain.job import JobState
from vidmill.services.tasks import SEQ_FINAL, TaskView

HEARTBEAT_S = 15.0
"""Proxies cut connections that are silent for 30 to 60 s."""

RETRY_MS = 2000

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class Teller:
    """Puts news into words: *doc* says how a task stands, *timestamp* when that was said."""

    doc: Callable[[TaskView], dict[str, Any]]
    timestamp: Callable[[], str]

    def envelope(self, view: TaskView) -> dict[str, Any]:
        """Return one event, in the form all channels share."""
        return {
            "id": event_id(view),
            "seq": view.order_key[1],
            "type": event_type(view),
            "timestamp": self.timestamp(),
            "data": self.doc(view),
        }


def parse_event_id(text: str | None) -> tuple[int, int]:
    """Return the key in a `Last-Event-ID`; one that is not ours counts as none."""
    attempt, dot, seq = (text or "").partition(".")
    is_ours = dot and attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit()
    return (int(attempt[:9]), int(seq[:9])) if is_ours else (-1, -1)


def has_heard_all(view: TaskView, last: tuple[int, int]) -> bool:
    """Whether nothing will ever follow the event *last*."""
    return view.is_over and last[1] == SEQ_FINAL


def event_id(view: TaskView) -> str:
    attempt, seq = view.order_key
    return f"{attempt}.{seq}"


def event_type(view: TaskView) -> str:
    if view.run.state is JobState.RUNNING and view.progress > 0:
        return "t2v.task.progress"
    if view.run.state is JobState.DELAYED:
        return "t2v.task.retrying"
    return f"t2v.task.{view.status}"


def frame(view: TaskView, tell: Teller, *, retry_ms: int | None) -> bytes:
    """Return one event. `retry` rides in a real event: alone in a block it confuses readers."""
    retry = f"retry: {retry_ms}\n" if retry_ms else ""
    data = json.dumps(tell.envelope(view), ensure_ascii=False, separators=(",", ":"))
    text = f"{retry}id: {event_id(view)}\nevent: {event_type(view)}\ndata: {data}\n\n"
    return text.encode()


async def stream(
    watcher: Watcher,
    view: TaskView,
    *,
    last: tuple[int, int],
    tell: Teller,
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncIterator[bytes]:
    """Yield the state, then each change of it that comes after *last*, until the task is over."""
    clock = asyncio.get_running_loop().time
    retry_ms: int | None = RETRY_MS
    spoke_at = clock()
    while True:
        if view.order_key > last:
            yield frame(view, tell, retry_ms=retry_ms)
            last, retry_ms, spoke_at = view.order_key, None, clock()
        elif clock() - spoke_at >= heartbeat_s:
            yield b": heartbeat\n\n"
            spoke_at = clock()
        if view.is_over:
            return
        try:
            view = await watcher.next(heartbeat_s - (clock() - spoke_at))
        except TaskNotFound:  # erased meanwhile
            return


async def while_admitted(
    frames: AsyncIterator[bytes], is_admitted: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield *frames* for as long as whoever reads them may: a stream can outlive its key."""
    async for piece in frames:
        if not await is_admitted():
            return
        yield piece


class EventStream(StreamingResponse):
    """An answer that is a stream of events; *watcher* stops with it, even if it never begins."""

    def __init__(self, watcher: Watcher, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, media_type="text/event-stream", headers=HEADERS)
        self._watcher = watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._watcher:
            await super().__call__(scope, receive, send)
