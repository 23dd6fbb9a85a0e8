"""Two processes of the API over one database: each answers for both."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.desks import KEY, Bench, make_replica
from tests.servers import Server
from tests.service.api.test_events import publish, publish_end, read_events
from vidmill.domain.job import JobState, Phase
from vidmill.store import jobs

GENERATE = "/v1/t2v/generate"


@pytest.fixture
def other(bench: Bench) -> Iterator[Bench]:
    """Another process beside `bench`."""
    made = make_replica(bench)
    yield made
    made.close()


def test_one_idempotency_key_makes_one_task_wherever_it_is_sent(bench: Bench, other: Bench) -> None:
    def send(number: int) -> httpx2.Response:
        client = (bench, other)[number % 2].client
        return client.post(GENERATE, json={"prompt": "x"}, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(24)))

    made = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["task_id"] for answer in made}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}


def test_identical_orders_at_the_same_time_share_one_run(bench: Bench, other: Bench) -> None:
    def send(number: int) -> httpx2.Response:
        return (bench, other)[number % 2].client.post(GENERATE, json={"prompt": "x"})

    with ThreadPoolExecutor(8) as threads:
        docs = [answer.json() for answer in threads.map(send, range(24))]

    assert len({doc["task_id"] for doc in docs}) == 24
    assert sum(not doc["cached"] for doc in docs) == 1
    bench.claim()
    assert (
        bench.app.db.write(
            lambda uow: jobs.claim(uow, pool="default", worker="w2", profile="tiny", lease_s=30.0)
        )
        is None
    )


def test_a_stream_here_tells_of_a_job_that_is_reported_there(bench: Bench, other: Bench) -> None:
    server = Server(other)
    try:
        task_id = bench.generate()["task_id"]
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{server.url}/v1/t2v/tasks/{task_id}/events"
        with httpx2.stream("GET", url, headers=headers, timeout=20) as answer:
            events = read_events(answer.iter_lines())
            seen = [next(events)]
            job = bench.claim()
            publish(bench, job, Phase.DENOISING, 0.5)
            seen.append(next(events))
            bench.settle(job, jobs.Failed(code="bad_output", message="black"))
            publish_end(bench, job, JobState.FAILED)
            seen.extend(events)
    finally:
        server.stop()

    assert [event.type for event in seen] == [
        "t2v.task.queued",
        "t2v.task.progress",
        "t2v.task.failed",
    ]


def test_a_long_poll_here_ends_with_a_cancel_there(bench: Bench, other: Bench) -> None:
    task_id = bench.generate()["task_id"]
    timer = threading.Timer(0.3, lambda: bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel"))
    timer.start()

    answer = other.client.get("/v1/t2v/status", params={"task_id": task_id, "wait": 10})

    timer.join()
    assert json.loads(answer.text)["status"] == "cancelled"
    assert answer.elapsed.total_seconds() < 5
