"""Server-sent events: what is told, in which frames, and where a reader goes on."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from starlette.requests import ClientDisconnect

from tests.callers import make_caller
from tests.desks import Bench, Served, finish
from vidmill.api.desk import Desk
from vidmill.api.events import EventStream, Teller, parse_event_id, stream
from vidmill.api.following import Watcher
from vidmill.domain.job import Job, JobState, Phase
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

CALLER = make_caller(1)


@dataclass(frozen=True)
class Event:
    id: str
    type: str
    data: dict[str, Any]

    @property
    def task(self) -> dict[str, Any]:
        """What the event says of the task."""
        task: dict[str, Any] = self.data["data"]
        return task


def read_events(lines: Iterator[str]) -> Iterator[Event]:
    """Yield events as the HTML standard reads them."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and "data" in fields:
            yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


@pytest.fixture
def follow(served: Served) -> Iterator[Callable[..., Iterator[Event]]]:
    """Open the event stream of a task, with or without a `Last-Event-ID`."""
    client = httpx2.Client(base_url=served.url, headers=dict(served.bench.client.headers))

    def opened(task_id: str, last: str | None = None) -> Iterator[Event]:
        headers = {} if last is None else {"Last-Event-ID": last}
        path = f"/v1/t2v/tasks/{task_id}/events"
        with client.stream("GET", path, headers=headers, timeout=20) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            yield from read_events(answer.iter_lines())

    yield opened
    client.close()


def publish(bench: Bench, job: Job, phase: Phase, progress: float) -> None:
    event = {
        "attempt": job.attempt,
        "state": JobState.RUNNING,
        "phase": phase,
        "progress": progress,
    }
    bench.app.bus.publish(job.public_id, event)


def publish_end(bench: Bench, job: Job, state: JobState) -> None:
    event = {"attempt": job.attempt, "state": state, "phase": Phase.DONE, "progress": 1.0}
    bench.app.bus.publish(job.public_id, event)


def test_a_stream_tells_the_state_then_each_step_and_ends_with_the_last(
    served: Served, follow: Callable[..., Iterator[Event]]
) -> None:
    bench = served.bench
    task_id = bench.generate()["task_id"]
    job = bench.claim()
    events = follow(task_id)

    first = next(events)
    publish(bench, job, Phase.DENOISING, 0.25)
    second = next(events)
    publish(bench, job, Phase.DENOISING, 0.5)
    third = next(events)
    bench.settle(job, jobs.Failed(code="bad_output", message="black"))
    publish_end(bench, job, JobState.FAILED)
    rest = list(events)

    types = [event.type for event in (first, second, third, *rest)]
    assert types == [
        "t2v.task.processing",
        "t2v.task.progress",
        "t2v.task.progress",
        "t2v.task.failed",
    ]
    assert [event.task["progress"] for event in (first, second, third)] == [0.0, 0.25, 0.5]
    assert rest[-1].task["error_message"] == "black"
    assert all(event.data["seq"] == int(event.id.partition(".")[2]) for event in rest)


def test_ids_only_grow_over_retries(served: Served, follow: Callable[..., Iterator[Event]]) -> None:
    bench = served.bench
    task_id = bench.generate()["task_id"]
    events = follow(task_id)
    seen = [next(events)]
    first = bench.claim()
    publish(bench, first, Phase.DENOISING, 0.8)
    seen.append(next(events))
    lost = jobs.Delayed(not_before=bench.clock.now, code="worker_lost", message="gone")
    bench.settle(first, lost)
    publish_end(bench, first, JobState.DELAYED)
    seen.append(next(events))
    bench.app.db.write(jobs.promote)
    second = bench.claim("w2")
    publish(bench, second, Phase.DENOISING, 0.1)
    seen.append(next(events))

    keys = [parse_event_id(event.id) for event in seen]
    assert keys == sorted(set(keys))
    assert [event.type for event in seen][2:] == ["t2v.task.retrying", "t2v.task.progress"]
    events.close()  # type: ignore[attr-defined]


def test_news_of_an_older_run_is_not_shown(
    served: Served, follow: Callable[..., Iterator[Event]]
) -> None:
    bench = served.bench
    task_id = bench.generate()["task_id"]
    zombie = bench.claim()
    lost = jobs.Delayed(not_before=bench.clock.now, code="worker_lost", message="gone")
    bench.settle(zombie, lost)
    bench.app.db.write(jobs.promote)
    job = bench.claim("w2")
    events = follow(task_id)
    next(events)

    publish(bench, zombie, Phase.STORING, 0.99)
    publish(bench, job, Phase.DENOISING, 0.1)

    assert next(events).task["progress"] == 0.1
    events.close()  # type: ignore[attr-defined]


def test_a_lost_event_is_made_good_by_the_row(
    served: Served, follow: Callable[..., Iterator[Event]]
) -> None:
    bench = served.bench
    task_id = bench.generate()["task_id"]
    events = follow(task_id)
    next(events)

    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))  # no event

    assert [event.type for event in events][-1] == "t2v.task.failed"


def test_a_reader_goes_on_after_what_he_heard(
    served: Served, follow: Callable[..., Iterator[Event]]
) -> None:
    bench = served.bench
    task_id = bench.generate()["task_id"]
    heard = next(follow(task_id))
    timer = threading.Timer(0.3, lambda: bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel"))
    timer.start()

    after = list(follow(task_id, heard.id))

    timer.join()
    assert [event.type for event in after] == ["t2v.task.cancelled"]


def test_a_finished_task_is_told_once(bench: Bench) -> None:
    path = f"/v1/t2v/tasks/{finish(bench)}/events"
    (event,) = read_events(iter(bench.client.get(path).text.split("\n")))

    again = bench.client.get(path, headers={"Last-Event-ID": event.id})

    assert event.type == "t2v.task.completed"
    assert event.task["result_url"]
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize("last", ["", "0", "x.y", "1", "-1.5", "1.٣", "9" * 400 + "." + "9" * 400])
def test_an_odd_last_event_id_counts_as_none_or_as_long_ago(bench: Bench, last: str) -> None:
    path = f"/v1/t2v/tasks/{finish(bench)}/events"

    answer = bench.client.get(path, headers={b"Last-Event-ID": last.encode()})

    assert answer.status_code in {200, 204}


def test_the_first_frame_says_how_soon_to_come_back(bench: Bench) -> None:
    text = bench.client.get(f"/v1/t2v/tasks/{finish(bench)}/events").text

    assert text.startswith("retry: 2000\nid: 1.999999\nevent: t2v.task.completed\ndata: {")
    assert text.endswith("}\n\n")


def test_silence_is_broken_by_comments(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    desk = Desk.of(bench.app)
    view = desk.tasks.get(task_id, CALLER)
    tell = Teller(doc=lambda news: {"status": news.status}, timestamp=lambda: "now")

    async def first_three() -> list[bytes]:
        with Watcher(desk.following, view, CALLER) as watcher:
            frames = stream(watcher, view, last=(-1, -1), tell=tell, heartbeat_s=0.01)
            found = [await anext(frames) for _ in range(3)]
            await frames.aclose()  # type: ignore[attr-defined]
        return found

    frames = asyncio.run(first_three())

    assert frames[1:] == [b": heartbeat\n\n"] * 2


def test_a_stream_that_never_began_is_not_counted_for_ever(bench: Bench) -> None:
    """The client may be gone before the first byte is sent."""
    task_id = bench.generate()["task_id"]
    desk = Desk.of(bench.app)
    view = desk.tasks.get(task_id, CALLER)

    async def begin_and_fail() -> int:
        async def send(_message: Any) -> None:
            raise OSError("gone")

        async def receive() -> Any:
            await asyncio.sleep(10)

        watcher = Watcher(desk.following, view, CALLER)
        watcher.start()
        tell = Teller(doc=lambda _: {}, timestamp=lambda: "now")
        answer = EventStream(watcher, stream(watcher, view, last=(-1, -1), tell=tell))
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        with pytest.raises(ClientDisconnect):
            await answer(scope, receive, send)
        return desk.following.num_watchers

    assert asyncio.run(begin_and_fail()) == 0
