"""The synchronous client: carries out what the flows ask for, one action after the other."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from vidmill.client import _transport
from vidmill.client._actions import Action, Flow, Open, Read, Reply, Report, Request, Send, Sleep, T
from vidmill.client._batch import Outcome, run_batch
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
from vidmill.client._video import Video

OnProgress = Callable[[Task], None]


class _Run:
    """One flow's dealings with the world; at most one answer is being streamed at a time."""

    def __init__(
        self, http: httpx2.Client, connection: Connection, on_progress: OnProgress | None
    ) -> None:
        self.connection = connection
        self._http = http
        self._on_progress = on_progress
        self._response: httpx2.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, action: Action) -> Any:
        """Carry out *action* and return its outcome.

        Raises:
            TransportError: The network failed.
        """
        with _transport.mapped_errors(self.connection):
            match action:
                case Send(request):
                    return _transport.whole(self._http.send(self._build(request)))
                case Open(request, read_timeout_s):
                    return self._open(request, read_timeout_s)
                case Read():
                    return next(self._pieces, None)
                case Sleep(seconds):
                    return time.sleep(seconds)
                case Report(task):
                    return self._on_progress(task) if self._on_progress else None

    def close(self) -> None:
        if self._response:
            self._response.close()

    def _open(self, request: Request, read_timeout_s: float) -> Reply:
        self.close()
        built = self._build(request)
        built.extensions["timeout"] = _transport.time_outs(read_timeout_s).as_dict()
        self._response = self._http.send(built, stream=True)
        if self._response.is_error:
            self._response.read()
            return _transport.whole(self._response)
        self._pieces = self._response.iter_bytes()
        return _transport.head_of(self._response)

    def _build(self, request: Request) -> httpx2.Request:
        return self._http.build_request(**_transport.arguments(request, self.connection))


class Vidmill:
    """A connection to a Vidmill server; safe to share between threads.

    Finds the server by itself: arguments, then `VIDMILL_URL` and `VIDMILL_API_KEY`, then
    `connection.json` in `$VIDMILL_DATA_DIR` or `$XDG_DATA_HOME/vidmill`.

    Example:
        >>> with Vidmill() as vidmill:
        ...     video = vidmill.generate("a red ball moves right", duration_s=3)
        ...     video.save("ball.mp4")
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
        self._http = httpx2.Client(
            timeout=_transport.time_outs(timeout_s),
            follow_redirects=True,
            trust_env=not self._connection.is_local,
            limits=httpx2.Limits(max_connections=100),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def connection(self) -> Connection:
        """The server in use, and where its address came from."""
        return self._connection

    def generate(
        self,
        prompt: str,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        **options: Unpack[ClipOptions],
    ) -> Video:
        """Make a clip and wait for it; `submit` is the way not to wait.

        Args:
            prompt: What to show.
            options: Length, size, seed and the rest: the fields of `ClipRequest`.
            on_progress: Called with the task at each change.
            timeout_s: Longest wait; the task goes on when it passes.

        Raises:
            InvalidRequest: A field is wrong; `errors` names all of them. Nothing was queued.
            TaskFailed, TaskCancelled: There is no clip.
            Timeout: *timeout_s* passed.
        """
        return self.wait(
            self.submit(ClipRequest(prompt=prompt, **options)),
            on_progress=on_progress,
            timeout_s=timeout_s,
        )

    def submit(self, clip: ClipRequest | str) -> Task:
        """Hand in a clip (a prompt alone takes the defaults) and return at once."""
        return self._run(self._flows.submit(as_request(clip)))

    def wait(
        self,
        task: Task | str,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
    ) -> Video:
        """Wait for a task, across dropped connections and restarts of the server.

        Raises:
            TaskFailed, TaskCancelled: There is no clip.
            Timeout: *timeout_s* passed; the task goes on.
        """
        start = self.status(task) if isinstance(task, str) else task
        done = self._run(self._flows.wait(start, timeout_s=timeout_s), on_progress)
        return self._video(done)

    def status(self, task_id: str) -> Task:
        """Return where a task stands, quickly."""
        return self._run(self._flows.status(task_id))

    def task(self, task_id: str) -> Task:
        """Return everything about a task, its request and result included."""
        return self._run(self._flows.task(task_id))

    def result(self, task_id: str) -> Video:
        """Return the clip of a completed task.

        Raises:
            TaskFailed, TaskCancelled, NotFinished: There is no clip, or not yet.
        """
        return self._video(self._run(self._flows.finished_task(task_id)))

    def tasks(
        self,
        *,
        status: TaskFilter | None = None,
        client_reference: str | None = None,
        q: str | None = None,
        page_size: int = 50,
    ) -> Iterator[Task]:
        """Iterate over your tasks, the newest first; pages are fetched as you go.

        *q* is looked for in the prompt and in the client reference, in whatever case.
        """
        query = task_query(status, client_reference, page_size, q=q)
        while True:
            page = self._run(self._flows.page(query))
            yield from page.data
            if not page.next_cursor:
                return
            query = {**query, "cursor": page.next_cursor}

    def cancel(self, task_id: str) -> Task:
        """Stop a task: a queued one at once, a running one within a denoising step.

        Raises:
            Conflict: It was already finished.
        """
        return self._run(self._flows.cancel(task_id))

    def run_next(self, task_id: str) -> Task:
        """Put a queued task before your other queued ones.

        Raises:
            Conflict: It does not wait for a worker.
        """
        return self._run(self._flows.run_next(task_id))

    def retry(self, task_id: str) -> Task:
        """Make a finished task once more, with the same seed, as a new task; return that.

        Raises:
            Conflict: It is not finished.
        """
        return self._run(self._flows.retry(task_id))

    def delete(self, task_id: str) -> None:
        """Delete a task and its files for good; a waiting one is cancelled first.

        Raises:
            Conflict: It is running; cancel it first.
        """
        self._run(self._flows.delete(task_id))

    def capabilities(self) -> Capabilities:
        """Return what the server can make, with every limit."""
        return self._run(self._flows.capabilities())

    def readiness(self) -> Readiness:
        """Return whether tasks are being worked on, and what is still loading."""
        return self._run(self._flows.readiness())

    def generate_many(
        self,
        clips: Sequence[ClipRequest | Task],
        *,
        concurrency: int = 8,
        on_progress: Callable[[int, Task], None] | None = None,
    ) -> Generator[Outcome[Video], None, None]:
        """Hand in all *clips*, then yield each outcome as it comes; one failure stops no other.

        Leaving the loop early leaves the tasks running: they are the server's.

        Args:
            clips: What to make; a `Task` is one handed in before, and is only waited for.
            concurrency: Tasks followed at the same time, the oldest first.
            on_progress: Called in this thread with the index and the task, first when accepted.
        """
        return run_batch(
            clips, submit=self.submit, wait=self.wait, concurrency=concurrency, report=on_progress
        )

    def _video(self, task: Task) -> Video:
        result = task.result or Result()
        return Video(task, result, lambda variant, sink: self._fetch(task, variant, sink))

    def _fetch(self, task: Task, variant: str, sink: Sink) -> None:
        self._run(self._flows.fetch(task, variant, into=sink))

    def _run(self, flow: Flow[T], on_progress: OnProgress | None = None) -> T:
        run = _Run(self._http, self._connection, on_progress)
        try:
            action = flow.send(None)
            while True:
                try:
                    value = run.perform(action)
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
            run.close()
