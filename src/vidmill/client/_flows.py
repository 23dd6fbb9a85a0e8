"""Every decision of the SDK, without any I/O: what to ask, when again, when a clip is done."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from vidmill.client._account_models import Quota
from vidmill.client._actions import Flow, Open, Read, Reply, Report, Request, Send, Sleep
from vidmill.client._calls import SILENCE_S, TRANSIENT, Calls, creating, deleting, getting, posting
from vidmill.client._errors import (
    ApiError,
    ConnectionLost,
    NotFinished,
    TaskCancelled,
    TaskFailed,
    Timeout,
    TransportError,
    api_error,
    retry_after_s,
)
from vidmill.client._events import Event, EventDecoder
from vidmill.client._explaining import Estimate, Explanation
from vidmill.client._models import (
    Capabilities,
    ClipOptions,
    ClipRequest,
    Page,
    Readiness,
    Task,
    TaskEvent,
    changes_to_wire,
)
from vidmill.client._sinks import Sink

STREAM_FROM_S = 20.0
"""With less time left, poll: a quiet stream could sleep through the deadline."""


@dataclass
class _Watch:
    """What is known of a task that is waited for."""

    task: Task
    deadline_s: float | None
    reported: Task | None = None
    last_event_id: str = ""
    has_stream: bool = True
    pause_s: float | None = None


class Flows(Calls):
    """What is asked of tasks."""

    def submit(self, clip: ClipRequest) -> Flow[Task]:
        """Hand in *clip*; sent again after a loss, it is still the same task."""
        return self.ask(Task, creating("/v1/t2v/generate", clip.to_wire()))

    def regenerate(self, task_id: str, changes: ClipOptions, prompt: str | None) -> Flow[Task]:
        path = f"/v1/t2v/tasks/{task_id}/regenerate"
        return self.ask(Task, creating(path, changes_to_wire(changes, prompt)))

    def estimate(self, clip: ClipRequest) -> Flow[Estimate]:
        return self.ask(Estimate, posting("/v1/t2v/estimate", clip.to_wire()))

    def status(self, task_id: str) -> Flow[Task]:
        """Return where a task stands; without its request and result, which `task` has."""
        return self.ask(Task, _status_of(task_id))

    def task(self, task_id: str, *, unreachable_s: float | None = None) -> Flow[Task]:
        request = getting(f"/v1/t2v/tasks/{task_id}")
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

    def explain(self, task_id: str) -> Flow[Explanation]:
        return self.ask(Explanation, getting(f"/v1/t2v/tasks/{task_id}/explain"))

    def cancel(self, task_id: str) -> Flow[Task]:
        return self.ask(Task, posting(f"/v1/t2v/tasks/{task_id}/cancel"))

    def run_next(self, task_id: str) -> Flow[Task]:
        return self.ask(Task, posting(f"/v1/t2v/tasks/{task_id}/run-next"))

    def retry(self, task_id: str) -> Flow[Task]:
        return self.ask(Task, creating(f"/v1/t2v/tasks/{task_id}/retry"))

    def delete(self, task_id: str) -> Flow[None]:
        yield from self.send(deleting(f"/v1/t2v/tasks/{task_id}"))

    def tasks(self, query: Mapping[str, str]) -> Flow[None]:
        return self.items(Page, "/v1/t2v/tasks", query)

    def capabilities(self) -> Flow[Capabilities]:
        return self.ask(Capabilities, getting("/v1/t2v/capabilities"))

    def quota(self) -> Flow[Quota]:
        return self.ask(Quota, getting("/v1/t2v/quota"))

    def readiness(self) -> Flow[Readiness]:
        """Return `/readyz` as it stands, ready (200) or not (503)."""
        reply: Reply = yield Send(getting("/readyz"))
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

    def fetch(self, task: Task, variant: str, *, into: Sink) -> Flow[None]:
        """Download a file of a completed *task*, through the API, so that no link can expire."""
        path = f"/v1/t2v/tasks/{task.task_id}/content"
        file = task.result.files.get(variant) if task.result else None
        yield from self.download(
            path, {"variant": variant}, into=into, sha256=file.sha256 if file else ""
        )

    def events(self, task_id: str, *, after: str) -> Flow[None]:
        """Report each event that follows the one with the id *after*, over drops and restarts.

        Raises:
            ApiError: The server refused.
            TransportError: It was away for longer than patience allows.
        """
        decoder, waited_s, tries = EventDecoder(after), 0.0, 0
        while True:
            tries += 1
            heard = decoder.last_id
            try:
                is_over = yield from self._tell(task_id, decoder)
                if is_over:
                    return
                error: ApiError | TransportError = ConnectionLost("the stream of events ended")
            except (TransportError, ApiError) as trouble:
                error = trouble
            if isinstance(error, ApiError) and error.status not in TRANSIENT:
                raise error
            if decoder.last_id != heard:
                waited_s, tries = 0.0, 1
            delay_s = self.delay_s(error, tries)
            if waited_s + delay_s > self.patience.outage_s:
                raise error
            waited_s += delay_s
            yield Sleep(delay_s)

    def _tell(self, task_id: str, decoder: EventDecoder) -> Flow[bool]:
        """Report what one stream tells; return whether nothing more will ever come."""
        reply: Reply = yield Open(_events_of(task_id, decoder.last_id), SILENCE_S)
        if reply.is_refusal:
            raise api_error(reply.status, reply.headers, reply.body)
        if reply.status == HTTPStatus.NO_CONTENT:
            return True
        decoder.restart()
        while (piece := (yield Read())) is not None:
            for event in decoder.feed(piece):
                news = _task_event(event)
                if news:
                    yield Report(news)
                if news and news.task.is_finished:
                    return True
        return False

    def _listen(self, watch: _Watch) -> Flow[None]:
        """Follow the event stream until it ends, breaks, or the deadline comes near."""
        decoder = EventDecoder(watch.last_event_id)
        request = _events_of(watch.task.task_id, watch.last_event_id)
        try:
            reply: Reply = yield Open(request, SILENCE_S)
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
    return getting("/v1/t2v/status", {"task_id": task_id})


def _events_of(task_id: str, after: str) -> Request:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    return Request(method="GET", path=f"/v1/t2v/tasks/{task_id}/events", headers=headers)


def _task_event(event: Event) -> TaskEvent | None:
    """Return what *event* says; None if that cannot be read: a newer server's, or no news."""
    try:
        envelope = json.loads(event.data)
        return TaskEvent(
            id=event.id,
            type=event.type,
            timestamp=envelope.get("timestamp"),
            task=Task.model_validate(envelope["data"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def as_request(clip: ClipRequest | str) -> ClipRequest:
    return ClipRequest(prompt=clip) if isinstance(clip, str) else clip


def task_query(
    status: str | None, client_reference: str | None, page_size: int, *, q: str | None = None
) -> dict[str, str]:
    query = {"status": status, "client_reference": client_reference, "q": q}
    return {name: value for name, value in query.items() if value} | {"limit": str(page_size)}


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
