"""The asynchronous client: the same surface on asyncio, the same flows underneath."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, Unpack

from vidmill.client._account_models import Quota
from vidmill.client._async_driver import AsyncDriver
from vidmill.client._batches import AsyncBatches
from vidmill.client._calls import Patience
from vidmill.client._connection import Connection, find_connection
from vidmill.client._explaining import Estimate, Explanation
from vidmill.client._flows import Flows, as_request, task_query
from vidmill.client._keys import AsyncKeys
from vidmill.client._loras import AsyncLoras
from vidmill.client._many import Outcome, run_batch_async
from vidmill.client._models import (
    Capabilities,
    ClipOptions,
    ClipRequest,
    Readiness,
    Result,
    Task,
    TaskEvent,
    TaskFilter,
)
from vidmill.client._sinks import Sink
from vidmill.client._storyboards import AsyncStoryboards
from vidmill.client._video import AsyncVideo
from vidmill.client._webhooks import AsyncWebhooks

AsyncOnProgress = Callable[[Task], Awaitable[None] | None]
"""May be a plain function or a coroutine function."""


class AsyncVidmill:
    """A connection to a Vidmill server; finds it as `Vidmill` does. One per event loop.

    Example:
        >>> async with AsyncVidmill() as vidmill:
        ...     video = await vidmill.generate("a red ball moves right", duration_s=3)
        ...     await video.save("ball.mp4")
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience: Patience | None = None,
    ) -> None:
        """Find the server; nothing is sent yet.

        Args:
            url: Address of the server, `http://host:port`.
            api_key: Key for it.
            timeout_s: Longest silence of the server while it answers one request.
            patience: How long to keep trying when it does not answer, or is busy.

        Raises:
            ConnectionNotFound: No server is configured; the message names every place looked at.
        """
        self._flows = Flows(patience=patience or Patience())
        self._driver = AsyncDriver(find_connection(url, api_key), timeout_s=timeout_s)
        self.batches = AsyncBatches(self._driver, self._flows)
        self.storyboards = AsyncStoryboards(self._driver, self._flows)
        self.webhooks = AsyncWebhooks(self._driver, self._flows)
        self.keys = AsyncKeys(self._driver, self._flows)
        self.loras = AsyncLoras(self._driver, self._flows)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._driver.close()

    @property
    def connection(self) -> Connection:
        """The server in use, and where its address came from."""
        return self._driver.connection

    async def generate(
        self,
        prompt: str,
        *,
        on_progress: AsyncOnProgress | None = None,
        timeout_s: float | None = None,
        **options: Unpack[ClipOptions],
    ) -> AsyncVideo:
        """Make a clip and wait for it; arguments and errors as in `Vidmill.generate`."""
        task = await self.submit(ClipRequest(prompt=prompt, **options))
        return await self.wait(task, on_progress=on_progress, timeout_s=timeout_s)

    async def submit(self, clip: ClipRequest | str) -> Task:
        """Hand in a clip (a prompt alone takes the defaults) and return at once."""
        return await self._driver.run(self._flows.submit(as_request(clip)))

    async def wait(
        self,
        task: Task | str,
        *,
        on_progress: AsyncOnProgress | None = None,
        timeout_s: float | None = None,
    ) -> AsyncVideo:
        """Wait for a task, across dropped connections and restarts of the server.

        Raises:
            TaskFailed, TaskCancelled: There is no clip.
            Timeout: *timeout_s* passed; the task goes on.
        """
        start = await self.status(task) if isinstance(task, str) else task
        done = await self._driver.run(self._flows.wait(start, timeout_s=timeout_s), on_progress)
        return self._video(done)

    async def events(self, task: Task | str, *, after: str = "") -> AsyncGenerator[TaskEvent, None]:
        """Iterate over the news of a task until it is over, across drops and restarts.

        The first event says how the task stands; one that failed is told, not raised.

        Args:
            task: The task, or its id.
            after: The `id` of the last event heard, to go on from there in another process.

        Raises:
            NotFound: There is no such task, or it was deleted meanwhile.
        """
        task_id = task if isinstance(task, str) else task.task_id
        async with contextlib.aclosing(
            self._driver.news(self._flows.events(task_id, after=after))
        ) as news:
            async for event in news:
                yield event

    async def status(self, task_id: str) -> Task:
        """Return where a task stands, quickly."""
        return await self._driver.run(self._flows.status(task_id))

    async def task(self, task_id: str) -> Task:
        """Return everything about a task, its request and result included."""
        return await self._driver.run(self._flows.task(task_id))

    async def result(self, task_id: str) -> AsyncVideo:
        """Return the clip of a completed task.

        Raises:
            TaskFailed, TaskCancelled, NotFinished: There is no clip, or not yet.
        """
        return self._video(await self._driver.run(self._flows.finished_task(task_id)))

    async def tasks(
        self,
        *,
        status: TaskFilter | None = None,
        client_reference: str | None = None,
        q: str | None = None,
        page_size: int = 50,
    ) -> AsyncIterator[Task]:
        """Iterate over your tasks, the newest first; pages are fetched as you go.

        *q* is looked for in the prompt and in the client reference, in whatever case.
        """
        query = task_query(status, client_reference, page_size, q=q)
        async with contextlib.aclosing(self._driver.news(self._flows.tasks(query))) as tasks:
            async for task in tasks:
                yield task

    async def cancel(self, task_id: str) -> Task:
        """Stop a task: a queued one at once, a running one within a denoising step.

        Raises:
            Conflict: It was already finished.
        """
        return await self._driver.run(self._flows.cancel(task_id))

    async def run_next(self, task_id: str) -> Task:
        """Put a queued task before your other queued ones.

        Raises:
            Conflict: It does not wait for a worker.
        """
        return await self._driver.run(self._flows.run_next(task_id))

    async def retry(self, task_id: str) -> Task:
        """Make a finished task once more, with the same seed, as a new task; return that.

        Raises:
            Conflict: It is not finished.
        """
        return await self._driver.run(self._flows.retry(task_id))

    async def regenerate(
        self, task_id: str, *, prompt: str | None = None, **changes: Unpack[ClipOptions]
    ) -> Task:
        """Make a task like this one, with what you change and, unless you say, a new seed."""
        return await self._driver.run(self._flows.regenerate(task_id, changes, prompt))

    async def delete(self, task_id: str) -> None:
        """Delete a task and its files for good; a running one is stopped."""
        await self._driver.run(self._flows.delete(task_id))

    async def estimate(self, clip: ClipRequest | str) -> Estimate:
        """Return what a clip would cost and when it would be done; nothing is queued or charged.

        Raises:
            InvalidRequest: A field is wrong.
        """
        return await self._driver.run(self._flows.estimate(as_request(clip)))

    async def explain(self, task_id: str) -> Explanation:
        """Return all that decided the pixels of a task, and where its time went."""
        return await self._driver.run(self._flows.explain(task_id))

    async def quota(self) -> Quota:
        """Return what your plan allows, and what is used of it."""
        return await self._driver.run(self._flows.quota())

    async def capabilities(self) -> Capabilities:
        """Return what the server can make, with every limit."""
        return await self._driver.run(self._flows.capabilities())

    async def readiness(self) -> Readiness:
        """Return whether tasks are being worked on, and what is still loading."""
        return await self._driver.run(self._flows.readiness())

    def generate_many(
        self,
        clips: Sequence[ClipRequest | Task],
        *,
        concurrency: int = 8,
        on_progress: Callable[[int, Task], None] | None = None,
    ) -> AsyncGenerator[Outcome[AsyncVideo], None]:
        """Hand in all *clips*, then yield each outcome as it comes; as `Vidmill.generate_many`."""
        return run_batch_async(
            clips, submit=self.submit, wait=self.wait, concurrency=concurrency, report=on_progress
        )

    def _video(self, task: Task) -> AsyncVideo:
        result = task.result or Result()
        return AsyncVideo(task, result, lambda variant, sink: self._fetch(task, variant, sink))

    async def _fetch(self, task: Task, variant: str, sink: Sink) -> None:
        await self._driver.run(self._flows.fetch(task, variant, into=sink))
