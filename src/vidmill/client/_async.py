"""The asynchronous client: the same surface on asyncio, the same flows underneath."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from vidmill.client import _transport
from vidmill.client._actions import Action, Flow, Open, Read, Reply, Report, Request, Send, Sleep, T
from vidmill.client._batch import Outcome, run_batch_async
from vidmill.client._connection import Connection, find_connection
from vidmill.client._errors import ServerUnreachable, TransportError
from vidmill.client._flows import Flows, Patience, as_request, task_query
from vidmill.client._models import (
    Capabilities,
    ClipOptions,
    ClipRequest,
    Readiness,
    Result,
    Task,
    TaskFilter,
)
from vidmill.client._sinks import Sink
from vidmill.client._video import AsyncVideo

AsyncOnProgress = Callable[[Task], Awaitable[None] | None]
"""May be a plain function or a coroutine function."""


class _Run:
    """One flow's dealings with the world; at most one answer is being streamed at a time."""

    def __init__(
        self, http: httpx2.AsyncClient, connection: Connection, on_progress: AsyncOnProgress | None
    ) -> None:
        self.connection = connection
        self._http = http
        self._on_progress = on_progress
        self._response: httpx2.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, action: Action) -> Any:
        """Carry out *action* and return its outcome.

        Raises:
            TransportError: The network failed.
        """
        with _transport.mapped_errors(self.connection):
            match action:
                case Send(request):
                    return _transport.whole(await self._http.send(self._build(request)))
                case Open(request, read_timeout_s):
                    return await self._open(request, read_timeout_s)
                case Read():
                    return await anext(self._pieces, None) if self._pieces else None
                case Sleep(seconds):
                    return await asyncio.sleep(seconds)
                case Report(task):
                    return await self._report(task)

    async def close(self) -> None:
        if self._response:
            await self._response.aclose()

    async def _report(self, task: Task) -> None:
        answer = self._on_progress(task) if self._on_progress else None
        if inspect.isawaitable(answer):
            await answer

    async def _open(self, request: Request, read_timeout_s: float) -> Reply:
        await self.close()
        built = self._build(request)
        built.extensions["timeout"] = _transport.time_outs(read_timeout_s).as_dict()
        self._response = await self._http.send(built, stream=True)
        if self._response.is_error:
            await self._response.aread()
            return _transport.whole(self._response)
        self._pieces = self._response.aiter_bytes()
        return _transport.head_of(self._response)

    def _build(self, request: Request) -> httpx2.Request:
        return self._http.build_request(**_transport.arguments(request, self.connection))


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
        self._connection = find_connection(url, api_key)
        self._flows = Flows(patience=patience or Patience())
        self._http = httpx2.AsyncClient(
            timeout=_transport.time_outs(timeout_s),
            follow_redirects=True,
            trust_env=not self._connection.is_local,
            limits=httpx2.Limits(max_connections=100),
        )

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
        await self._http.aclose()

    @property
    def connection(self) -> Connection:
        """The server in use, and where its address came from."""
        return self._connection

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
        return await self._run(self._flows.submit(as_request(clip)))

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
        done = await self._run(self._flows.wait(start, timeout_s=timeout_s), on_progress)
        return self._video(done)

    async def status(self, task_id: str) -> Task:
        """Return where a task stands, quickly."""
        return await self._run(self._flows.status(task_id))

    async def task(self, task_id: str) -> Task:
        """Return everything about a task, its request and result included."""
        return await self._run(self._flows.task(task_id))

    async def result(self, task_id: str) -> AsyncVideo:
        """Return the clip of a completed task.

        Raises:
            TaskFailed, TaskCancelled, NotFinished: There is no clip, or not yet.
        """
        return self._video(await self._run(self._flows.finished_task(task_id)))

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
        while True:
            page = await self._run(self._flows.page(query))
            for task in page.data:
                yield task
            if not page.next_cursor:
                return
            query = {**query, "cursor": page.next_cursor}

    async def cancel(self, task_id: str) -> Task:
        """Stop a task: a queued one at once, a running one within a denoising step.

        Raises:
            Conflict: It was already finished.
        """
        return await self._run(self._flows.cancel(task_id))

    async def run_next(self, task_id: str) -> Task:
        """Put a queued task before your other queued ones.

        Raises:
            Conflict: It does not wait for a worker.
        """
        return await self._run(self._flows.run_next(task_id))

    async def retry(self, task_id: str) -> Task:
        """Make a finished task once more, with the same seed, as a new task; return that.

        Raises:
            Conflict: It is not finished.
        """
        return await self._run(self._flows.retry(task_id))

    async def delete(self, task_id: str) -> None:
        """Delete a task and its files for good; a waiting one is cancelled first.

        Raises:
            Conflict: It is running; cancel it first.
        """
        await self._run(self._flows.delete(task_id))

    async def capabilities(self) -> Capabilities:
        """Return what the server can make, with every limit."""
        return await self._run(self._flows.capabilities())

    async def readiness(self) -> Readiness:
        """Return whether tasks are being worked on, and what is still loading."""
        return await self._run(self._flows.readiness())

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
        await self._run(self._flows.fetch(task, variant, into=sink))

    async def _run(self, flow: Flow[T], on_progress: AsyncOnProgress | None = None) -> T:
        run = _Run(self._http, self._connection, on_progress)
        try:
            action = flow.send(None)
            while True:
                try:
                    value = await run.perform(action)
                except TransportError as error:
                    if isinstance(error, ServerUnreachable):
                        run.connection = self._connection = self._connection.refreshed()
                    action = flow.throw(error)
                else:
                    action = flow.send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a generator's return value
        finally:
            flow.close()
            await run.close()
