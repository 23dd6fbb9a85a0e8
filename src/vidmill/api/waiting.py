"""How coroutines wait: for a durable write, and for news of a task."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from vidmill.domain.job import JobState
from vidmill.services.access import Caller
from vidmill.services.tasks import Tasks, TaskView
from vidmill.store.session import Database, UnitOfWork

T = TypeVar("T")

REREAD_S = 2.0
"""How often a follower looks at the row on its own, since events may be lost."""


async def write(db: Database, fn: Callable[[UnitOfWork], T]) -> T:
    """Return what `db.write(fn)` returns, without a thread that waits for the commit.

    With 32 connections a thread each costs more than the insert itself.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], T]) -> None:
        try:
            value = outcome()
        except Exception as error:  # noqa: BLE001 - handed on to whoever awaits
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(value)

    def on_done(outcome: Callable[[], T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    db.begin_write(fn, on_done)
    return await future


class Follower:
    """One task, followed. Use it as a context manager: it listens to the bus meanwhile."""

    def __init__(self, tasks: Tasks, view: TaskView, caller: Caller) -> None:
        self._tasks = tasks
        self._caller = caller
        self._view = view
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._stop: Callable[[], None] | None = None
        self._is_stale = True

    def __enter__(self) -> Self:
        self._stop = self._tasks.bus.subscribe(self._view.job.public_id, self._on_event)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stop:
            self._stop()

    async def next(self, timeout_s: float) -> TaskView:
        """Return the task as it is after the next event, or after *timeout_s* at most."""
        if not self._is_stale:
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except TimeoutError:
                self._is_stale = True
        self._news.clear()
        self._view = self._reread() if self._is_stale else self._tasks.view(self._view.job)
        return self._view

    def _reread(self) -> TaskView:
        self._is_stale = False
        return self._tasks.get(self._view.job.public_id, self._caller)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: Mapping[str, Any]) -> None:
        job = self._view.job
        is_same_run = event["state"] == job.state == JobState.RUNNING
        if not is_same_run or event["attempt"] != job.attempt:
            self._is_stale = True
        self._news.set()


async def changed(tasks: Tasks, view: TaskView, caller: Caller, *, timeout_s: float) -> TaskView:
    """Return the task once it stands otherwise than *view*, or after *timeout_s*."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    news = view
    with Follower(tasks, view, caller) as follower:
        while news.order_key == view.order_key and not news.is_over:
            left_s = deadline - loop.time()
            if left_s <= 0:
                break
            news = await follower.next(min(REREAD_S, left_s))
    return news
