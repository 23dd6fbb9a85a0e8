"""The synchronous client."""

from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Self, Unpack

from vidmill.client._account_models import Quota
from vidmill.client._batches import Batches
from vidmill.client._calls import Patience
from vidmill.client._connection import Connection, find_connection
from vidmill.client._driver import Driver
from vidmill.client._explaining import Estimate, Explanation
from vidmill.client._flows import Flows, as_request, task_query
from vidmill.client._keys import Keys
from vidmill.client._loras import Loras
from vidmill.client._many import Outcome, run_batch
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
from vidmill.client._storyboards import Storyboards
from vidmill.client._video import Video
from vidmill.client._webhooks import Webhooks

OnProgress = Callable[[Task], None]


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
        self._flows = Flows(patience=patience or Patience())
        self._driver = Driver(find_connection(url, api_key), timeout_s=timeout_s)
        self.batches = Batches(self._driver, self._flows)
        self.storyboards = Storyboards(self._driver, self._flows)
        self.webhooks = Webhooks(self._driver, self._flows)
        self.keys = Keys(self._driver, self._flows)
        self.loras = Loras(self._driver, self._flows)

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
        self._driver.close()

    @property
    def connection(self) -> Connection:
        """The server in use, and where its address came from."""
        return self._driver.connection

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
        return self._driver.run(self._flows.submit(as_request(clip)))

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
        done = self._driver.run(self._flows.wait(start, timeout_s=timeout_s), on_progress)
        return self._video(done)

    def events(self, task: Task | str, *, after: str = "") -> Generator[TaskEvent, None, None]:
        """Iterate over the news of a task until it is over, across drops and restarts.

        The first event says how the task stands; one that failed is told, not raised.

        Args:
            task: The task, or its id.
            after: The `id` of the last event heard, to go on from there in another process.

        Raises:
            NotFound: There is no such task, or it was deleted meanwhile.
        """
        task_id = task if isinstance(task, str) else task.task_id
        yield from self._driver.news(self._flows.events(task_id, after=after))

    def status(self, task_id: str) -> Task:
        """Return where a task stands, quickly."""
        return self._driver.run(self._flows.status(task_id))

    def task(self, task_id: str) -> Task:
        """Return everything about a task, its request and result included."""
        return self._driver.run(self._flows.task(task_id))

    def result(self, task_id: str) -> Video:
        """Return the clip of a completed task.

        Raises:
            TaskFailed, TaskCancelled, NotFinished: There is no clip, or not yet.
        """
        return self._video(self._driver.run(self._flows.finished_task(task_id)))

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
        yield from self._driver.news(self._flows.tasks(query))

    def cancel(self, task_id: str) -> Task:
        """Stop a task: a queued one at once, a running one within a denoising step.

        Raises:
            Conflict: It was already finished.
        """
        return self._driver.run(self._flows.cancel(task_id))

    def run_next(self, task_id: str) -> Task:
        """Put a queued task before your other queued ones.

        Raises:
            Conflict: It does not wait for a worker.
        """
        return self._driver.run(self._flows.run_next(task_id))

    def retry(self, task_id: str) -> Task:
        """Make a finished task once more, with the same seed, as a new task; return that.

        Raises:
            Conflict: It is not finished.
        """
        return self._driver.run(self._flows.retry(task_id))

    def regenerate(
        self, task_id: str, *, prompt: str | None = None, **changes: Unpack[ClipOptions]
    ) -> Task:
        """Make a task like this one, with what you change and, unless you say, a new seed."""
        return self._driver.run(self._flows.regenerate(task_id, changes, prompt))

    def delete(self, task_id: str) -> None:
        """Delete a task and its files for good; a running one is stopped."""
        self._driver.run(self._flows.delete(task_id))

    def estimate(self, clip: ClipRequest | str) -> Estimate:
        """Return what a clip would cost and when it would be done; nothing is queued or charged.

        Raises:
            InvalidRequest: A field is wrong.
        """
        return self._driver.run(self._flows.estimate(as_request(clip)))

    def explain(self, task_id: str) -> Explanation:
        """Return all that decided the pixels of a task, and where its time went."""
        return self._driver.run(self._flows.explain(task_id))

    def quota(self) -> Quota:
        """Return what your plan allows, and what is used of it."""
        return self._driver.run(self._flows.quota())

    def capabilities(self) -> Capabilities:
        """Return what the server can make, with every limit."""
        return self._driver.run(self._flows.capabilities())

    def readiness(self) -> Readiness:
        """Return whether tasks are being worked on, and what is still loading."""
        return self._driver.run(self._flows.readiness())

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
        self._driver.run(self._flows.fetch(task, variant, into=sink))
