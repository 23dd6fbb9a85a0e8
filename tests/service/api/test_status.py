"""Looking at one task: status, result, everything; what polls cost and how they wait."""

import threading

import pytest

from tests.builders import make_result
from tests.desks import Bench, Served, finish
from vidmill.domain.clip import Size
from vidmill.domain.job import Job, JobState, Phase
from vidmill.store import jobs

STATUS = "/v1/t2v/status"


def news(job: Job, phase: Phase, progress: float) -> dict[str, object]:
    return {
        "attempt": job.attempt,
        "state": JobState.RUNNING,
        "phase": phase,
        "progress": progress,
    }


def test_a_queued_task_says_so(bench: Bench) -> None:
    accepted = bench.generate()

    answer = bench.client.get(STATUS, params={"task_id": accepted["task_id"]})

    assert answer.status_code == 200
    assert answer.json() == accepted
    assert "Retry-After" in answer.headers


def test_a_running_task_names_attempt_phase_and_progress(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    job = bench.claim()
    held = [jobs.Progress(job.id, job.attempt, Phase.DENOISING, 0.4)]
    bench.app.db.write(lambda uow: jobs.heartbeat(uow, worker="w1", lease_s=30.0, progress=held))

    doc = bench.client.get(STATUS, params={"task_id": task_id}).json()

    assert (doc["status"], doc["phase"], doc["progress"]) == ("processing", "denoising", 0.4)
    assert (doc["attempt"], doc["queue_position"]) == (1, None)


def test_an_unchanged_task_costs_no_body(bench: Bench) -> None:
    params = {"task_id": bench.generate()["task_id"]}
    etag = bench.client.get(STATUS, params=params).headers["ETag"]

    answer = bench.client.get(STATUS, params=params, headers={"If-None-Match": etag})

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == etag


def test_a_changed_task_has_another_etag(bench: Bench) -> None:
    params = {"task_id": bench.generate()["task_id"]}
    etag = bench.client.get(STATUS, params=params).headers["ETag"]
    bench.claim()

    answer = bench.client.get(STATUS, params=params, headers={"If-None-Match": etag})

    assert answer.status_code == 200


def test_a_finished_task_stays_unchanged_while_its_link_does(bench: Bench) -> None:
    params = {"task_id": finish(bench)}
    first = bench.client.get(STATUS, params=params)
    bench.clock.advance(60)

    second = bench.client.get(
        STATUS, params=params, headers={"If-None-Match": first.headers["ETag"]}
    )

    assert second.status_code == 304
    assert "Retry-After" not in first.headers


def test_a_failed_task_says_why(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.settle(bench.claim(), jobs.Failed(code="timed_out", message="it ran for 30 min"))

    doc = bench.client.get(STATUS, params={"task_id": task_id}).json()

    assert (doc["status"], doc["error_message"]) == ("failed", "it ran for 30 min")
    assert doc["error"] == {
        "code": "timed_out",
        "message": "it ran for 30 min",
        "retryable": False,
    }


def test_a_delayed_task_is_processing_and_says_when_it_goes_on(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    due = bench.clock.now + 10
    lost = jobs.Delayed(not_before=due, code="worker_lost", message="the worker died")
    bench.settle(bench.claim(), lost)

    doc = bench.client.get(STATUS, params={"task_id": task_id}).json()

    assert (doc["status"], doc["retry_at"]) == ("processing", "2027-01-15T08:00:10.000Z")
    assert doc["error"]["retryable"] is True


@pytest.mark.parametrize(
    "task_id", ["t2v_0", "t2v_" + "0" * 32, "", "' or 1=1 --", "t2v_\x00", "ü" * 500]
)
def test_a_task_that_is_not_there_is_not_found(bench: Bench, task_id: str) -> None:
    answer = bench.client.get(STATUS, params={"task_id": task_id})

    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


def test_a_missing_task_id_is_named(bench: Bench) -> None:
    answer = bench.client.get(STATUS)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/query/task_id"


def test_an_eta_is_told_once_such_a_clip_was_measured(bench: Bench) -> None:
    bench.generate(duration=3.0)
    job = bench.claim()
    bench.clock.advance(8)
    timings = {"denoising": 6.0, "decoding": 2.0}
    bench.settle(job, jobs.Succeeded(result=make_result(timings_s=timings)))
    bench.clock.advance(2)  # what was learnt is looked at every second

    waiting = [bench.generate(duration=3.0) for _ in range(2)]

    assert all(doc["eta"]["p50"] <= doc["eta"]["p90"] for doc in waiting)
    assert waiting[0]["eta"]["p50"] < waiting[1]["eta"]["p50"]


def test_a_result_is_told_with_everything_about_it(bench: Bench) -> None:
    task_id = finish(bench)

    answer = bench.client.get(f"/v1/t2v/result/{task_id}")

    doc = answer.json()
    result = doc["result"]
    assert answer.status_code == 200
    assert doc["status"] == "completed"
    assert (doc["progress"], doc["result_url"]) == (1.0, result["url"])
    assert (result["width"], result["height"]) == (832, 480)
    assert (result["native_width"], result["native_height"]) == (80, 48)
    assert result["is_upscaled"] is True
    assert result["expires_at"] == "2027-01-15T09:00:00.000Z"
    assert set(result["files"]) == {"video", "poster", "preview"}
    assert doc["poster_url"] == result["files"]["poster"]["url"]


def test_a_clip_drawn_at_its_delivered_size_is_not_called_upscaled(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    drawn = make_result(native=Size(832, 480))
    bench.settle(bench.claim(), jobs.Succeeded(result=drawn))

    result = bench.client.get(f"/v1/t2v/result/{task_id}").json()["result"]

    assert result["is_upscaled"] is False
    assert result["poster_url"] is None


def test_the_result_of_a_live_task_is_its_state_so_far(bench: Bench) -> None:
    accepted = bench.generate()

    answer = bench.client.get(f"/v1/t2v/result/{accepted['task_id']}")

    assert (answer.status_code, answer.json()) == (202, accepted)
    assert "Retry-After" in answer.headers


def test_a_failed_task_has_no_result(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black frames"))

    answer = bench.client.get(f"/v1/t2v/result/{task_id}")

    assert (answer.status_code, answer.json()["code"]) == (409, "task_failed")
    assert "black frames" in answer.json()["detail"]


def test_a_cancelled_task_has_no_result(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")

    answer = bench.client.get(f"/v1/t2v/result/{task_id}")

    assert (answer.status_code, answer.json()["code"]) == (409, "task_cancelled")


def test_a_task_shows_request_final_prompt_seed_and_runs(bench: Bench) -> None:
    task_id = bench.generate(prompt=" a ball ", seed=7, metadata={"a": "b"})["task_id"]
    due = bench.clock.now
    bench.settle(bench.claim(), jobs.Delayed(not_before=due, code="worker_lost", message="gone"))

    doc = bench.client.get(f"/v1/t2v/tasks/{task_id}").json()

    assert (doc["prompt"], doc["seed"], doc["metadata"]) == ("a ball", 7, {"a": "b"})
    assert doc["request"]["prompt"] == "a ball"
    assert doc["request"]["duration"] == 5.0
    assert (doc["additions"], doc["result"]) == ([], None)
    assert [(run["attempt"], run["error_code"]) for run in doc["attempts"]] == [(1, "worker_lost")]


def test_a_long_poll_answers_when_something_happens(served: Served) -> None:
    bench = served.bench
    task_id = bench.generate()["task_id"]
    job = bench.claim()
    bench.app.bus.latest(task_id)  # the API listens from its first question on
    timer = threading.Timer(
        0.2, lambda: bench.app.bus.publish(task_id, news(job, Phase.DENOISING, 0.5))
    )
    timer.start()

    answer = served.get(STATUS, params={"task_id": task_id, "wait": 20})

    timer.join()
    assert (answer.json()["phase"], answer.json()["progress"]) == ("denoising", 0.5)


def test_a_long_poll_without_news_answers_with_what_there_is(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]

    answer = bench.client.get(STATUS, params={"task_id": task_id, "wait": 0.05})

    assert answer.json()["status"] == "queued"


def test_a_long_poll_of_a_finished_task_answers_at_once(bench: Bench) -> None:
    answer = bench.client.get(STATUS, params={"task_id": finish(bench), "wait": 30})

    assert answer.json()["status"] == "completed"
