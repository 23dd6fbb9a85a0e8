"""Many clips at once: hand in all of them, then follow as many as `concurrency` allows.

The server keeps the queue, so everything is handed in first: closing the laptop loses nothing.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vidmill.client._errors import TaskError, Timeout, VidmillError
from vidmill.client._models import ClipRequest, Task

V = TypeVar("V")
Report = Callable[[int, Task], None]


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[V]):
    """What became of one clip: a video, or an error; `task` is None if it was never accepted."""

    index: int
    task: Task | None
    video: V | None = None
    error: VidmillError | None = None


class _Stopped(Exception):
    """Not an error: unwinds a thread whose caller has left."""


@dataclass(frozen=True)
class _Progress:
    index: int
    task: Task


class _Crew(Generic[V]):
    """Threads that hand in and wait; what they learn goes to the caller's thread by a queue."""

    def __init__(
        self,
        clips: Sequence[ClipRequest | Task],
        submit: Callable[[ClipRequest], Task],
        wait: Callable[..., V],
    ) -> None:
        self.news: queue.SimpleQueue[_Progress | Outcome[V] | BaseException] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._clips = clips
        self._accepted: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
        self._submit = submit
        self._wait = wait

    def start(self, concurrency: int) -> None:
        for job in [self._hand_in] + [self._follow] * concurrency:
            threading.Thread(target=self._guarded, args=(job,), daemon=True).start()

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self.news.put(error)

    def _hand_in(self) -> None:
        """Hand in one after the other: the queue keeps the order of the file."""
        for index, clip in enumerate(self._clips):
            if self.stop.is_set():
                return
            try:
                task = clip if isinstance(clip, Task) else self._submit(clip)
            except VidmillError as error:
                self.news.put(Outcome(index=index, task=None, error=error))
            else:
                self.news.put(_Progress(index, task))
                self._accepted.put((index, task))

    def _follow(self) -> None:
        while not self.stop.is_set():
            try:
                index, task = self._accepted.get(timeout=0.2)
            except queue.Empty:
                continue
            self.news.put(self._outcome(index, task))

    def _outcome(self, index: int, task: Task) -> Outcome[V]:
        latest = [task]

        def report(task: Task) -> None:
            if self.stop.is_set():
                raise _Stopped
            latest[0] = task
            self.news.put(_Progress(index, task))

        try:
            video = self._wait(task, on_progress=report)
        except VidmillError as error:
            return Outcome(index=index, task=_last_task(error, latest[0]), error=error)
        return Outcome(index=index, task=latest[0], video=video)


def run_batch(
    clips: Sequence[ClipRequest | Task],
    *,
    submit: Callable[[ClipRequest], Task],
    wait: Callable[..., V],
    concurrency: int,
    report: Report | None,
) -> Generator[Outcome[V], None, None]:
    """Yield the outcome of each clip as it comes; *report* runs in the caller's thread."""
    crew = _Crew(clips, submit, wait)
    crew.start(min(concurrency, max(1, len(clips))))
    left = len(clips)
    try:
        while left:
            news = crew.news.get()
            if isinstance(news, BaseException):
                raise news
            if isinstance(news, Outcome):
                left -= 1
                yield news
            elif report:
                report(news.index, news.task)
    finally:
        crew.stop.set()


class _AsyncCrew(Generic[V]):
    """The same as coroutines on one event loop."""

    def __init__(
        self,
        clips: Sequence[ClipRequest | Task],
        submit: Callable[[ClipRequest], Awaitable[Task]],
        wait: Callable[..., Awaitable[V]],
        report: Report | None,
    ) -> None:
        self.news: asyncio.Queue[Outcome[V] | BaseException] = asyncio.Queue()
        self._clips = clips
        self._accepted: asyncio.Queue[tuple[int, Task]] = asyncio.Queue()
        self._submit = submit
        self._wait = wait
        self._report = report or (lambda _index, _task: None)

    def start(self, concurrency: int) -> list[asyncio.Task[None]]:
        jobs = [self._hand_in] + [self._follow] * concurrency
        return [asyncio.create_task(self._guarded(job)) for job in jobs]

    async def _guarded(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception as error:  # noqa: BLE001  # raised again where the caller iterates
            self.news.put_nowait(error)

    async def _hand_in(self) -> None:
        for index, clip in enumerate(self._clips):
            try:
                task = clip if isinstance(clip, Task) else await self._submit(clip)
            except VidmillError as error:
                self.news.put_nowait(Outcome(index=index, task=None, error=error))
            else:
                self._report(index, task)
                self._accepted.put_nowait((index, task))

    async def _follow(self) -> None:
        while True:
            index, task = await self._accepted.get()
            self.news.put_nowait(await self._outcome(index, task))

    async def _outcome(self, index: int, task: Task) -> Outcome[V]:
        latest = [task]

        def report(task: Task) -> None:
            latest[0] = task
            self._report(index, task)

        try:
            video = await self._wait(task, on_progress=report)
        except VidmillError as error:
            return Outcome(index=index, task=_last_task(error, latest[0]), error=error)
        return Outcome(index=index, task=latest[0], video=video)


async def run_batch_async(
    clips: Sequence[ClipRequest | Task],
    *,
    submit: Callable[[ClipRequest], Awaitable[Task]],
    wait: Callable[..., Awaitable[V]],
    concurrency: int,
    report: Report | None,
) -> AsyncGenerator[Outcome[V], None]:
    """Yield the outcome of each clip as it comes; *report* runs on the event loop."""
    crew = _AsyncCrew(clips, submit, wait, report)
    running = crew.start(min(concurrency, max(1, len(clips))))
    try:
        for _ in clips:
            news = await crew.news.get()
            if isinstance(news, BaseException):
                raise news
            yield news
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _last_task(error: VidmillError, known: Task) -> Task:
    return error.task if isinstance(error, TaskError | Timeout) else known
