"""Who follows which task: a row is read once for all who follow it here, however many they are.

Events are hints and may be lost, so a followed row is read again every `REREAD_S` at the latest.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from vidmill.api.waiting import Reads
from vidmill.domain.errors import ServiceUnavailable, TaskNotFound
from vidmill.domain.job import JobState
from vidmill.services.access import Caller
from vidmill.services.tasks import Tasks, TaskView
from vidmill.telemetry import get_logger

log = get_logger(__name__)

REREAD_S = 2.0
"""How often a followed row is read without news, the bound on a lost event."""

OnNews = Callable[[TaskView | None], None]
"""Told how a task stands now; None = it was erased. Called in the event loop; must be quick."""


class Glances:
    """How coroutines look at a task: by the short way on SQLite, many at once on a server."""

    def __init__(self, tasks: Tasks, reads: Reads) -> None:
        self._tasks = tasks
        self._reads = reads
        self._gathering = reads.gathering(tasks.get_many)

    async def get(self, task_id: str, caller: Caller) -> TaskView:
        """Return the caller's task; see `Tasks.get`.

        Raises:
            TaskNotFound: There is none, or it is somebody else's.
            ServiceUnavailable: The database is away or silent.
        """
        if not self._reads.is_remote:
            return self._tasks.get(task_id, caller)
        return await self._gathering.ask((task_id, caller))


class Following:
    """The tasks followed in this process. For its event loop only."""

    def __init__(self, tasks: Tasks, reads: Reads, *, watchers_max: int) -> None:
        self._tasks = tasks
        self._reads = reads
        self._glances = Glances(tasks, reads)
        self._watchers_max = watchers_max
        self._followed: dict[int, _Followed] = {}
        self.num_watchers = 0

    def admit(self) -> Callable[[], None]:
        """Count one more who watches; returns the way to stop.

        Raises:
            ServiceUnavailable: There are as many as there may be.
        """
        if self.num_watchers >= self._watchers_max:
            raise ServiceUnavailable(
                f"{self.num_watchers} streams are open here, and {self._watchers_max} is the"
                " limit (VIDMILL_WATCHERS_MAX); poll the status, or come back later"
            )
        self.num_watchers += 1
        return _once(self._leave)

    def watch(self, view: TaskView, caller: Caller, on_news: OnNews) -> Callable[[], None]:
        """Call *on_news* at each change of a task the caller may see; returns the way to stop.

        Raises:
            ServiceUnavailable: As `admit`.
        """
        leave = self.admit()
        job_id = view.job.id
        followed = self._followed.get(job_id)
        if followed is None or followed.is_done:
            followed = _Followed(self._tasks, self._reads, self._glances, view, caller)
            self._followed[job_id] = followed
        followed.listeners.append(on_news)

        def stop() -> None:
            leave()
            followed.listeners.remove(on_news)
            if followed.listeners:
                return
            followed.close()
            if self._followed.get(job_id) is followed:
                del self._followed[job_id]

        return _once(stop)

    def _leave(self) -> None:
        self.num_watchers -= 1


class _Followed:
    """One task, and all who want to hear of it."""

    def __init__(
        self, tasks: Tasks, reads: Reads, glances: Glances, view: TaskView, caller: Caller
    ) -> None:
        self.listeners: list[OnNews] = []
        self.is_done = False
        self._tasks = tasks
        self._reads = reads
        self._glances = glances
        self._view = view
        self._caller = caller
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_stale = True  # whoever made *view* did so before the bus was listened to
        self._ears: dict[str, Callable[[], None]] = {}
        self._listen()
        self._news.set()
        self._work = self._loop.create_task(self._run())

    def close(self) -> None:
        self._work.cancel()
        self._end()

    def _end(self) -> None:
        self.is_done = True
        for stop in self._ears.values():
            stop()
        self._ears = {}

    async def _run(self) -> None:
        try:
            while not self._view.is_over:
                await self._wait()
                await self._look()
        except TaskNotFound:
            self._tell(None)
        finally:
            self._end()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(REREAD_S):
                await self._news.wait()
        except TimeoutError:
            self._is_stale = True
        self._news.clear()

    async def _look(self) -> None:
        is_stale, self._is_stale = self._is_stale, False
        try:
            self._view = await (self._reread() if is_stale else self._refresh())
        except ServiceUnavailable as error:
            self._is_stale = True  # looked at again when REREAD_S are over
            log.warning("follow_failed", job_id=self._view.job.public_id, error=str(error))
            return
        self._listen()
        self._tell(self._view)

    async def _reread(self) -> TaskView:
        return await self._glances.get(self._view.job.public_id, self._caller)

    async def _refresh(self) -> TaskView:
        return await self._reads.run_quick(lambda: self._tasks.refresh(self._view))

    def _tell(self, view: TaskView | None) -> None:
        for on_news in list(self.listeners):
            on_news(view)

    def _listen(self) -> None:
        """Hear of the task itself and of the one it follows, which may change."""
        wanted = {self._view.job.public_id, self._view.run.public_id}
        for task_id in self._ears.keys() - wanted:
            self._ears.pop(task_id)()
        for task_id in wanted - self._ears.keys():
            self._ears[task_id] = self._tasks.bus.subscribe(task_id, self._on_event)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: Mapping[str, Any]) -> None:
        run = self._view.run
        is_same_run = event["state"] == run.state == JobState.RUNNING
        if not is_same_run or event["attempt"] != run.attempt:
            self._is_stale = True
        self._news.set()


class Watcher:
    """One who follows one task and looks when he has time: what he missed is not kept for him."""

    def __init__(self, following: Following, view: TaskView, caller: Caller) -> None:
        self._following = following
        self._view = view
        self._caller = caller
        self._is_erased = False
        self._news = asyncio.Event()
        self._stop: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to listen; whoever starts it leaves it as a context later.

        Raises:
            ServiceUnavailable: As `Following.watch`.
        """
        if self._stop is None:
            self._stop = self._following.watch(self._view, self._caller, self._on_news)

    def __enter__(self) -> Self:
        self.start()
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
        """Return the task as it stands after the next news, or after *timeout_s* at most.

        Raises:
            TaskNotFound: It was erased meanwhile.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        self._news.clear()
        if self._is_erased:
            raise TaskNotFound(f"task {self._view.job.public_id} was deleted")
        return self._view

    def _on_news(self, view: TaskView | None) -> None:
        if view is None:
            self._is_erased = True
        else:
            self._view = view
        self._news.set()


async def changed(
    following: Following, view: TaskView, caller: Caller, *, timeout_s: float
) -> TaskView:
    """Return the task once it stands otherwise than *view*, or after *timeout_s*."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    news = view
    with Watcher(following, view, caller) as watcher:
        while not view.is_over and not news.is_news_after(view):
            left_s = deadline - loop.time()
            if left_s <= 0:
                break
            news = await watcher.next(left_s)
    return news


async def over(
    following: Following, view: TaskView, caller: Caller, *, timeout_s: float
) -> TaskView:
    """Return the task once it is over, or how it stands after *timeout_s*."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    with Watcher(following, view, caller) as watcher:
        while not view.is_over and (left_s := deadline - loop.time()) > 0:
            view = await watcher.next(left_s)
    return view


def _once(fn: Callable[[], None]) -> Callable[[], None]:
    """Return what calls *fn* the first time only."""
    left = [fn]

    def call() -> None:
        if left:
            left.pop()()

    return call
