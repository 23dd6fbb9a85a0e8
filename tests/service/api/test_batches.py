"""`/v1/t2v/batches`: checked and priced first, queued together, and managed."""

from pathlib import Path

import pytest

from tests.batches import BATCHES, confirmed, counts, create, get, post, stored
from tests.builders import make_result
from tests.desks import Bench, make_bench
from vidmill.domain.job import JobState, Lane
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


def test_a_check_prices_each_row_and_queues_nothing(bench: Bench) -> None:
    doc = create(bench, {"custom_id": "a", "prompt": "red"}, {"prompt": "blue", "duration": 5.0})

    assert (doc["state"], counts(doc)) == ("checked", {"total": 2, "ready": 2})
    assert doc["price"] == {"credits": 80, "held": 0, "captured": 0, "released": 0}
    assert doc["problems"] == []
    assert [(row["line"], row["prompt"], row["price_credits"]) for row in doc["samples"]] == [
        (1, "red", 30),
        (2, "blue", 50),
    ]
    assert stored(bench) == []


def test_confirming_queues_every_ready_row_in_the_batch_lane(bench: Bench) -> None:
    doc = create(bench, {"prompt": "red"}, {"prompt": ""}, {"prompt": "blue"}, name="spring")

    answer = post(bench, doc["batch_id"], "confirm")

    assert answer.status_code == 200
    after = answer.json()
    assert (after["state"], after["name"]) == ("processing", "spring")
    assert counts(after) == {"total": 3, "invalid": 1, "queued": 2}
    assert after["price"] == {"credits": 60, "held": 60, "captured": 0, "released": 0}
    assert [(job.spec.prompt, job.lane) for job in stored(bench)] == [
        ("red", Lane.BATCH),
        ("blue", Lane.BATCH),
    ]


def test_all_or_nothing_queues_nothing_while_a_row_is_wrong(bench: Bench) -> None:
    doc = create(bench, {"prompt": "red"}, {"prompt": ""})

    answer = post(bench, doc["batch_id"], "confirm", json={"accept": "all_or_nothing"})

    assert (answer.status_code, answer.json()["code"]) == (409, "batch_state")
    assert stored(bench) == []
    assert get(bench, doc["batch_id"])["state"] == "checked"


def test_one_call_does_both_if_every_row_is_right(bench: Bench) -> None:
    right = bench.client.post(f"{BATCHES}?confirm=true", json={"items": [{"prompt": "red"}]})
    wrong = bench.client.post(
        f"{BATCHES}?confirm=true", json={"items": [{"prompt": "blue"}, {"prompt": ""}]}
    )

    assert (right.status_code, right.json()["state"]) == (202, "processing")
    assert (wrong.status_code, wrong.json()["state"]) == (201, "checked")
    assert [job.spec.prompt for job in stored(bench)] == ["red"]


def test_confirming_twice_queues_once(bench: Bench) -> None:
    doc = create(bench, {"prompt": "red"})

    answers = [post(bench, doc["batch_id"], "confirm") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert "Idempotency-Replayed" not in answers[0].headers
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    assert len(stored(bench)) == 1


def test_a_create_sent_twice_under_one_key_makes_one_batch(bench: Bench) -> None:
    body = {"items": [{"prompt": "red"}]}
    url = f"{BATCHES}?confirm=true"

    first, again = (
        bench.client.post(url, json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2)
    )
    other = bench.client.post(
        url, json={"items": [{"prompt": "blue"}]}, headers={"Idempotency-Key": "k1"}
    )

    assert first.json()["batch_id"] == again.json()["batch_id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(stored(bench)) == 1


def test_what_nobody_confirms_is_forgotten_after_a_day(bench: Bench) -> None:
    doc = create(bench, {"prompt": "red"})
    bench.clock.advance(86_400)

    answer = post(bench, doc["batch_id"], "confirm")
    listed = bench.client.get(BATCHES).json()["data"]

    assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")
    assert listed == []


def test_a_batch_beyond_the_queue_limit_is_not_queued_at_all(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    bench = make_bench(tmp_path / "small", cap_queued=1)
    doc = create(bench, {"prompt": "red"}, {"prompt": "blue"})

    answer = post(bench, doc["batch_id"], "confirm")

    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert stored(bench) == []
    assert get(bench, doc["batch_id"])["state"] == "checked"
    one = create(bench, {"prompt": "red"})
    bench.generate()
    full = post(bench, one["batch_id"], "confirm")
    assert (full.status_code, full.json()["code"]) == (429, "queue_full")
    bench.close()


def test_a_paused_batch_is_not_worked_on_and_its_tasks_look_queued(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "blue")
    running = bench.claim()

    paused = post(bench, batch_id, "pause").json()

    assert (paused["state"], counts(paused)) == (
        "paused",
        {"total": 2, "queued": 1, "processing": 1},
    )
    waiting = next(job for job in stored(bench) if job.id != running.id)
    status = bench.client.get("/v1/t2v/status", params={"task_id": waiting.public_id}).json()
    assert (status["status"], status["phase"], status["retry_at"]) == ("queued", "paused", None)
    listed = bench.client.get("/v1/t2v/tasks", params={"status": "queued"}).json()["data"]
    assert [task["task_id"] for task in listed] == [waiting.public_id]
    bench.settle(running, jobs.Succeeded(result=make_result()))
    with pytest.raises(AssertionError):
        bench.claim()


def test_a_resumed_batch_goes_on_where_it_stood(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "blue", "green")
    post(bench, batch_id, "pause")
    later = bench.generate(prompt="later", priority="low")

    resumed = post(bench, batch_id, "resume").json()

    assert (resumed["state"], counts(resumed)) == ("processing", {"total": 3, "queued": 3})
    order = [bench.claim(f"w{n}").spec.prompt for n in range(4)]
    assert order == ["red", "blue", "green", later["prompt"]]


def test_cancelling_ends_what_waits_and_stops_what_runs(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "blue", "green")
    running = bench.claim()

    doc = post(bench, batch_id, "cancel").json()

    assert (doc["state"], counts(doc)) == (
        "cancelling",
        {"total": 3, "cancelled": 2, "processing": 1},
    )
    bench.settle(running, jobs.Cancelled())
    over = get(bench, batch_id)
    assert (over["state"], counts(over)) == ("cancelled", {"total": 3, "cancelled": 3})
    assert over["price"]["released"] == over["price"]["credits"] == 90
    assert over["finished_at"] is not None


def test_identical_rows_share_one_run_and_are_cancelled_together(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "red", "red", defaults={"duration": 3.0})
    assert [job.state for job in stored(bench)] == [
        JobState.QUEUED,
        JobState.FOLLOWING,
        JobState.FOLLOWING,
    ]

    doc = post(bench, batch_id, "cancel").json()

    assert (doc["state"], counts(doc)) == ("cancelled", {"total": 3, "cancelled": 3})


def test_identical_rows_end_together(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "red", defaults={"duration": 3.0})
    bench.claim()
    assert counts(get(bench, batch_id)) == {"total": 2, "processing": 2}

    job = next(job for job in stored(bench) if job.state is JobState.RUNNING)
    bench.settle(job, jobs.Succeeded(result=make_result()))

    assert counts(get(bench, batch_id)) == {"total": 2, "completed": 2}


def test_a_run_that_others_wait_for_goes_on_while_the_batch_is_paused(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "blue", defaults={"duration": 3.0})
    outside = bench.client.post(
        "/v1/t2v/generate", json={"prompt": "red", "duration": 3.0, "priority": "low"}
    ).json()
    assert outside["cached"]

    post(bench, batch_id, "pause")

    assert bench.claim().spec.prompt == "red"
    assert [job.phase for job in stored(bench)] == ["starting", "paused", "waiting"]


def test_nobody_follows_a_paused_clip(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", defaults={"duration": 3.0})
    post(bench, batch_id, "pause")

    for _ in range(2):
        bench.client.post(
            "/v1/t2v/generate", json={"prompt": "red", "duration": 3.0, "priority": "low"}
        )

    assert [job.state for job in stored(bench)] == [
        JobState.DELAYED,
        JobState.QUEUED,
        JobState.QUEUED,
    ]


def test_failed_rows_are_run_again_as_new_tasks_with_the_same_seed(bench: Bench) -> None:
    batch_id = confirmed(bench, "red", "blue")
    failed = bench.claim()
    bench.settle(failed, jobs.Failed(code="bad_output", message="black"))
    bench.settle(bench.claim(), jobs.Succeeded(result=make_result()))
    assert get(bench, batch_id)["state"] == "completed"

    doc = post(bench, batch_id, "rerun-failed").json()

    assert (doc["state"], doc["finished_at"]) == ("processing", None)
    assert counts(doc) == {"total": 2, "completed": 1, "queued": 1}
    again = bench.claim()
    assert (again.parent, again.spec.seed) == (failed.public_id, failed.spec.seed)
    bench.settle(again, jobs.Succeeded(result=make_result()))
    assert counts(get(bench, batch_id)) == {"total": 2, "completed": 2}


def test_running_again_needs_a_row_that_failed(bench: Bench) -> None:
    batch_id = confirmed(bench, "red")

    answer = post(bench, batch_id, "rerun-failed")

    assert (answer.status_code, answer.json()["code"]) == (409, "batch_state")


def test_running_again_under_one_key_runs_once(bench: Bench) -> None:
    batch_id = confirmed(bench, "red")
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))

    first, again = (
        post(bench, batch_id, "rerun-failed", headers={"Idempotency-Key": "k"}) for _ in range(2)
    )

    assert [answer.status_code for answer in (first, again)] == [200, 200]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(stored(bench)) == 2


def test_a_batch_under_way_cannot_be_deleted_and_one_that_is_over_leaves_its_tasks(
    bench: Bench,
) -> None:
    batch_id = confirmed(bench, "red")
    assert bench.client.delete(f"{BATCHES}/{batch_id}").status_code == 409
    post(bench, batch_id, "cancel")

    assert bench.client.delete(f"{BATCHES}/{batch_id}").status_code == 204

    assert bench.client.get(f"{BATCHES}/{batch_id}").status_code == 404
    assert [job.state for job in stored(bench)] == [JobState.CANCELLED]


def test_a_checked_batch_is_deleted_without_a_trace(bench: Bench) -> None:
    doc = create(bench, {"prompt": "red"})

    assert bench.client.delete(f"{BATCHES}/{doc['batch_id']}").status_code == 204

    assert bench.client.get(BATCHES).json()["data"] == []


@pytest.mark.parametrize("action", ["pause", "resume", "cancel", "rerun-failed"])
def test_what_does_not_fit_the_state_is_refused(bench: Bench, action: str) -> None:
    doc = create(bench, {"prompt": "red"})

    answer = post(bench, doc["batch_id"], action)

    assert (answer.status_code, answer.json()["code"]) == (409, "batch_state")


def test_pausing_twice_changes_nothing(bench: Bench) -> None:
    batch_id = confirmed(bench, "red")

    answers = [post(bench, batch_id, "pause") for _ in range(2)]

    assert [answer.json()["state"] for answer in answers] == ["paused", "paused"]
