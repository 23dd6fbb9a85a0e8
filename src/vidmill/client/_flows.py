"""Every decision of the SDK, without any I/O: what to ask, when again, when a clip is done."""

import json
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from vidmill.client._actions import Flow, Open, Read, Reply, Report, Request, Send, Sleep
from vidmill.client._errors import (
    ApiError,
    DownloadDamaged,
    NotFinished,
    ServerUnreachable,
    TaskCancelled,
    TaskFailed,
    Timeout,
    TransportError,
    api_error,
    retry_after_s,
)
from vidmill.client._events import Event, EventDecoder
from vidmill.client._models import Capabilities, ClipRequest, Page, Readiness, Task
from vidmill.client._sinks import Sink

BUSY = frozenset({429, 503})
"""The server took nothing and asks to come back: safe to repeat, even a submit."""

TRANSIENT = BUSY | {502, 504}
"""Answers after which a repeatable request is tried again."""

SILENCE_S = 40.0
"""An event stream says something every 15 s; a longer silence means that it is dead."""

STREAM_FROM_S = 20.0
"""With less time left, poll: a quiet stream could sleep through the deadline."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to keep trying, in seconds of waiting between tries.

    Attributes:
        unreachable_s: No server answers at the first request. Short: it is probably not running.
        busy_s: The server asks to come back (queue full, starting).
        outage_s: The server vanished while a clip was being made. Long: a restart loses nothing.
    """

    unreachable_s: float = 2.0
    busy_s: float = 60.0
    outage_s: float = 300.0


@dataclass
class _Watch:
    """What is known of a task that is waited for."""

    task: Task
    deadline_s: float | None
    reported: Task | None = None
    last_event_id: str = ""
    has_stream: bool = True
    pause_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Flows:
    """The SDK's operations. `clock` is monotonic; `jitter` gives 0..1.

    Attributes:
        poll_s: Pause between looks at a task, where the server does not ask for another.
    """

    patience: Patience = Patience()
    poll_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def submit(self, clip: ClipRequest) -> Flow[Task]:
        """Hand in *clip* once: repeated only when the server surely did not take it."""
        request = Request(
            method="POST",
            path="/v1/t2v/generate",
            headers={"Idempotency-Key": str(uuid.uuid4())},
            body=clip.to_wire(),
            is_repeatable=False,
        )
        return Task.model_validate_json((yield from self.send(request)).body)

    def status(self, task_id: str) -> Flow[Task]:
        """Return where a task stands; without its request and result, which `task` has."""
        return Task.model_validate_json((yield from self.send(_status_of(task_id))).body)

    def task(self, task_id: str, *, unreachable_s: float | None = None) -> Flow[Task]:
        request = Request(method="GET", path=f"/v1/t2v/tasks/{task_id}")
        reply = yield from self.send(request, unreachable_s=unreachable_s)
        return Task.model_validate_json(reply.body)

    def finished_task(self, task_id: str) -> Flow[Task]:
        """Return a task that has delivered.

        Raises:
            TaskFailed, TaskCancelled, NotFinished: It has not.
        """
        task = yield from self.task(task_id)
        if not task.is_finished:
            raise NotFinished(f"task {task_id} is still {task.status}; wait for it first", task)
        return completed(task)

    def cancel(self, task_id: str) -> Flow[Task]:
        request = Request(method="POST", path=f"/v1/t2v/tasks/{task_id}/cancel")
        return Task.model_validate_json((yield from self.send(request)).body)

    def run_next(self, task_id: str) -> Flow[Task]:
        request = Request(method="POST", path=f"/v1/t2v/tasks/{task_id}/run-next")
        return Task.model_validate_json((yield from self.send(request)).body)

    def retry(self, task_id: str) -> Flow[Task]:
        """Make a finished task once more; the key lets a lost request be sent again."""
        request = Request(
            method="POST",
            path=f"/v1/t2v/tasks/{task_id}/retry",
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )
        return Task.model_validate_json((yield from self.send(request)).body)

    def delete(self, task_id: str) -> Flow[None]:
        request = Request(method="DELETE", path=f"/v1/t2v/tasks/{task_id}", is_repeatable=False)
        yield from self.send(request)

    def page(self, query: Mapping[str, str]) -> Flow[Page]:
        request = Request(method="GET", path="/v1/t2v/tasks", query=query)
        return Page.model_validate_json((yield from self.send(request)).body)

    def capabilities(self) -> Flow[Capabilities]:
        request = Request(method="GET", path="/v1/t2v/capabilities")
        return Capabilities.model_validate_json((yield from self.send(request)).body)

    def readiness(self) -> Flow[Readiness]:
        """Return `/readyz` as it stands, ready (200) or not (503)."""
        reply: Reply = yield Send(Request(method="GET", path="/readyz"))
        try:
            return Readiness.model_validate_json(reply.body)
        except ValueError:
            raise api_error(reply.status, reply.headers, reply.body) from None

    def wait(self, task: Task, *, timeout_s: float | None) -> Flow[Task]:
        """Report each change of *task* until it is finished; survives drops and server restarts.

        Raises:
            Timeout: *timeout_s* passed first; the task goes on.
            TaskFailed, TaskCancelled: It ended without a clip.
        """
        deadline_s = None if timeout_s is None else self.clock() + timeout_s
        watch = _Watch(task, deadline_s)
        yield from _report(watch)
        while not watch.task.is_finished:
            if self._is_stream_worth_while(watch):
                yield from self._listen(watch)
            if not watch.task.is_finished:
                yield from self._look(watch)
        if watch.task.status == "completed" and watch.task.result is None:
            watch.task = yield from self.task(task.task_id, unreachable_s=self.patience.outage_s)
        return completed(watch.task)

    def send(self, request: Request, *, unreachable_s: float | None = None) -> Flow[Reply]:
        """Send *request*, again where that is safe, and return a 2xx.

        Raises:
            ApiError: The server refused.
            TransportError: It could not be reached for as long as patience allows.
        """
        limit_s = self.patience.unreachable_s if unreachable_s is None else unreachable_s
        waited_s, tries = 0.0, 0
        while True:
            tries += 1
            try:
                reply: Reply = yield Send(request)
                if not reply.is_refusal:
                    return reply
                error: ApiError | TransportError = api_error(
                    reply.status, reply.headers, reply.body
                )
            except TransportError as lost:
                error = lost
            delay_s = self._delay_s(error, tries)
            allowed_s = self.patience.busy_s if isinstance(error, ApiError) else limit_s
            if not _may_repeat(error, request) or waited_s + delay_s > max(allowed_s, limit_s):
                raise error
            waited_s += delay_s
            yield Sleep(delay_s)

    def download(
        self, path: str, query: Mapping[str, str], *, into: Sink, sha256: str
    ) -> Flow[None]:
        """Stream a file *into* a sink, going on where a dropped connection stopped.

        Raises:
            DownloadDamaged: The bytes do not have the checksum *sha256* (unless that is empty).
        """
        waited_s, tries = 0.0, 0
        while True:
            tries += 1
            before = into.size
            try:
                yield from self._receive(path, query, into)
                break
            except (TransportError, ApiError) as error:
                tries = 1 if into.size > before else tries
                delay_s = self._delay_s(error, tries)
                is_final = isinstance(error, ApiError) and error.status not in TRANSIENT
                if is_final or waited_s + delay_s > self.patience.busy_s:
                    raise
            waited_s += delay_s
            yield Sleep(delay_s)
        if sha256 and into.sha256() != sha256:
            raise DownloadDamaged(f"{path}: SHA-256 is {into.sha256()}, the server says {sha256}")

    def fetch(self, task: Task, variant: str, *, into: Sink) -> Flow[None]:
        """Download a file of a completed *task*, through the API, so that no link can expire."""
        path = f"/v1/t2v/tasks/{task.task_id}/content"
        file = task.result.files.get(variant) if task.result else None
        yield from self.download(
            path, {"variant": variant}, into=into, sha256=file.sha256 if file else ""
        )

    def _receive(self, path: str, query: Mapping[str, str], into: Sink) -> Flow[None]:
        headers = {"Range": f"bytes={into.size}-"} if into.size else {}
        request = Request(method="GET", path=path, query=query, headers=headers)
        reply: Reply = yield Open(request, SILENCE_S)
        if (
            reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        ):  # nothing is left to send; the checksum decides
            return
        if reply.is_refusal:
            raise api_error(reply.status, reply.headers, reply.body)
        if reply.status != HTTPStatus.PARTIAL_CONTENT and into.size:
            into.restart()
        while (piece := (yield Read())) is not None:
            into.write(piece)

    def _listen(self, watch: _Watch) -> Flow[None]:
        """Follow the event stream until it ends, breaks, or the deadline comes near."""
        headers = {"Accept": "text/event-stream"}
        if watch.last_event_id:
            headers["Last-Event-ID"] = watch.last_event_id
        path = f"/v1/t2v/tasks/{watch.task.task_id}/events"
        decoder = EventDecoder(watch.last_event_id)
        try:
            reply: Reply = yield Open(Request(method="GET", path=path, headers=headers), SILENCE_S)
            if reply.status != HTTPStatus.OK:
                watch.has_stream = reply.status in TRANSIENT | {HTTPStatus.NO_CONTENT}
                return
            while (piece := (yield Read())) is not None:
                for event in decoder.feed(piece):
                    watch.last_event_id = event.id
                    yield from _hear(watch, event)
                if watch.task.is_finished or self._left_s(watch) <= STREAM_FROM_S:
                    return
        except TransportError:
            return

    def _look(self, watch: _Watch) -> Flow[None]:
        """Read the state once, patiently, after a pause that the deadline may shorten."""
        task_id, left_s = watch.task.task_id, self._left_s(watch)
        late = Timeout(f"task {task_id} was not finished in time; it goes on", watch.task)
        if left_s <= 0:
            raise late
        yield Sleep(min(watch.pause_s or self.poll_s, left_s))
        outage_s = min(self.patience.outage_s, max(left_s, 0.0))
        try:
            reply = yield from self.send(_status_of(task_id), unreachable_s=outage_s)
        except TransportError as error:
            if outage_s < self.patience.outage_s:
                raise late from error
            raise
        watch.pause_s = retry_after_s(reply.headers)
        watch.task = watch.task.updated(Task.model_validate_json(reply.body))
        yield from _report(watch)

    def _is_stream_worth_while(self, watch: _Watch) -> bool:
        """A stream tells of steps; the place in the queue is news only to who asks.

        Who is next needs no news of his place, and a short clip is done before the next look.
        """
        is_near = watch.task.status != "queued" or watch.task.queue_position == 0
        return watch.has_stream and is_near and self._left_s(watch) > STREAM_FROM_S

    def _left_s(self, watch: _Watch) -> float:
        return float("inf") if watch.deadline_s is None else watch.deadline_s - self.clock()

    def _delay_s(self, error: ApiError | TransportError, tries: int) -> float:
        """Return what the server asked for, or 0.25 s doubling to 5 s, each with jitter."""
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        backoff_s = float(min(5.0, 0.25 * 2.0 ** (tries - 1)))
        return asked_s if asked_s is not None else backoff_s * (0.5 + self.jitter())


def completed(task: Task) -> Task:
    """Return *task* if it delivered.

    Raises:
        TaskFailed, TaskCancelled: It ended otherwise.
    """
    if task.status == "failed":
        reason = task.error.message if task.error else task.error_message
        raise TaskFailed(f"task {task.task_id} failed: {reason or 'no reason given'}", task)
    if task.status == "cancelled":
        raise TaskCancelled(f"task {task.task_id} was cancelled", task)
    return task


def _status_of(task_id: str) -> Request:
    return Request(method="GET", path="/v1/t2v/status", query={"task_id": task_id})


def as_request(clip: ClipRequest | str) -> ClipRequest:
    return ClipRequest(prompt=clip) if isinstance(clip, str) else clip


def task_query(
    status: str | None, client_reference: str | None, page_size: int, *, q: str | None = None
) -> dict[str, str]:
    query = {"status": status, "client_reference": client_reference, "q": q}
    return {name: value for name, value in query.items() if value} | {"limit": str(page_size)}


def _may_repeat(error: ApiError | TransportError, request: Request) -> bool:
    if isinstance(error, ApiError):
        return error.status in (TRANSIENT if request.is_repeatable else BUSY)
    return request.is_repeatable or isinstance(error, ServerUnreachable)


def _hear(watch: _Watch, event: Event) -> Flow[None]:
    try:
        envelope = json.loads(event.data)
        news = Task.model_validate({"status": watch.task.status, **envelope["data"]})
    except (ValueError, KeyError, TypeError):
        return  # an event of a newer server; the row stays the truth
    watch.task = watch.task.updated(news)
    yield from _report(watch)


def _report(watch: _Watch) -> Flow[None]:
    if watch.task != watch.reported:
        watch.reported = watch.task
        yield Report(watch.task)
