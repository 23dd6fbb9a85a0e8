"""Retrying, deleting, and requests that are sent twice."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.builders import make_result
from tests.desks import Bench, finish
from vidmill.services.erasure import Erasure, Leftovers
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

GENERATE = "/v1/t2v/generate"
TASKS = "/v1/t2v/tasks"


def send(bench: Bench, key: str, **changes: object) -> httpx2.Response:
    body = {"prompt": "a red ball", **changes}
    return bench.client.post(GENERATE, json=body, headers={"Idempotency-Key": key})


def count(bench: Bench) -> int:
    return len(bench.client.get(TASKS).json()["data"])


def test_the_same_request_under_the_same_key_is_the_same_task(bench: Bench) -> None:
    first, again = send(bench, "k-1"), send(bench, '"k-1"')

    assert (first.status_code, again.status_code) == (202, 202)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["task_id"] == first.json()["task_id"]
    assert count(bench) == 1


def test_another_request_under_the_same_key_is_refused(bench: Bench) -> None:
    send(bench, "k")

    answer = send(bench, "k", seed=1)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert count(bench) == 1


def test_a_key_is_the_tenants_own_and_forgotten_after_a_day(bench: Bench) -> None:
    first = send(bench, "k").json()["task_id"]
    headers = {"Idempotency-Key": "k"}
    other = bench.other().post(GENERATE, json={"prompt": "a red ball"}, headers=headers)
    bench.clock.advance(86_401)

    assert other.json()["task_id"] != first
    assert send(bench, "k", seed=1).json()["task_id"] != first


def test_requests_at_the_same_time_under_one_key_make_one_task(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: send(bench, "k"), range(16)))

    made = [answer for answer in answers if answer.status_code == 202]
    others = [answer for answer in answers if answer.status_code != 202]
    assert len({answer.json()["task_id"] for answer in made}) == count(bench) == 1
    assert {answer.json()["code"] for answer in others} <= {"idempotency_in_progress"}


def test_a_refused_submit_does_not_use_up_its_key(bench: Bench) -> None:
    send(bench, "k", duration=99)

    assert send(bench, "k").status_code == 202


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a b", "\xfc"])
def test_a_key_that_is_none_is_refused(bench: Bench, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = bench.client.post(GENERATE, json={"prompt": "x"}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_retry_repeats_the_clip_and_names_its_parent(bench: Bench) -> None:
    old = finish(bench)

    answer = bench.client.post(f"{TASKS}/{old}/retry")

    new = bench.client.get(f"{TASKS}/{answer.json()['task_id']}").json()
    parent = bench.client.get(f"{TASKS}/{old}").json()
    assert (answer.status_code, new["parent_task_id"], new["status"]) == (202, old, "queued")
    assert (new["seed"], new["prompt"], new["request"]) == (
        parent["seed"],
        parent["prompt"],
        parent["request"],
    )


def test_a_live_task_is_not_retried(bench: Bench) -> None:
    answer = bench.client.post(f"{TASKS}/{bench.generate()['task_id']}/retry")

    assert (answer.status_code, answer.json()["code"]) == (409, "task_still_live")


def test_a_retry_under_one_key_happens_once(bench: Bench) -> None:
    url, headers = f"{TASKS}/{finish(bench)}/retry", {"Idempotency-Key": "k"}

    made = {bench.client.post(url, headers=headers).json()["task_id"] for _ in range(2)}

    assert len(made) == 1


def test_a_deleted_task_leaves_no_row_and_no_file(bench: Bench) -> None:
    task_id = finish(bench)

    assert bench.client.delete(f"{TASKS}/{task_id}").status_code == 204

    assert bench.client.get(f"{TASKS}/{task_id}").status_code == 404
    assert [path for path in bench.folder.rglob("*") if path.parent.name == task_id] == []
    assert bench.app.blobs.head(f"{task_id}/1/video.mp4") is None
    assert bench.client.delete(f"{TASKS}/{task_id}").status_code == 404


def test_a_waiting_task_is_cancelled_and_deleted(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]

    assert bench.client.delete(f"{TASKS}/{task_id}").status_code == 204
    assert not bench.app.db.read(jobs.find_drift)


def test_a_running_task_is_stopped_and_nobody_finds_it_any_more(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    job = bench.claim()

    assert bench.client.delete(f"{TASKS}/{task_id}").status_code == 202

    asked = [f"{TASKS}/{task_id}", f"/v1/t2v/status?task_id={task_id}", f"/v1/t2v/result/{task_id}"]
    assert {bench.client.get(path).status_code for path in asked} == {404}
    assert bench.client.post(f"{TASKS}/{task_id}/cancel").status_code == 404
    assert bench.client.delete(f"{TASKS}/{task_id}").status_code == 404
    assert count(bench) == 0
    row = bench.app.db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert row is not None
    assert row.is_cancel_requested


@pytest.mark.parametrize(
    "outcome",
    [
        jobs.Cancelled(),
        jobs.Succeeded(result=make_result()),
        jobs.Delayed(not_before=0.0, code="worker_lost", message="gone"),
    ],
)
def test_what_was_deleted_while_it_ran_is_erased_however_its_run_ends(
    bench: Bench, outcome: jobs.Outcome
) -> None:
    task_id = bench.generate()["task_id"]
    job = bench.claim()
    bench.client.delete(f"{TASKS}/{task_id}")
    leftovers = Leftovers(Erasure(db=bench.app.db, blobs=bench.app.blobs))

    leftovers.erase_some()
    assert bench.app.db.read(lambda conn: jobs.get_by_id(conn, job.id)) is not None
    bench.settle(job, outcome)
    leftovers.erase_some()

    assert bench.app.db.read(lambda conn: jobs.get_by_id(conn, job.id)) is None
    assert not bench.app.db.read(jobs.find_drift)


def test_the_key_of_a_task_deleted_while_it_runs_makes_one_new_task(bench: Bench) -> None:
    old = send(bench, "k", cache=False).json()["task_id"]
    bench.claim()
    bench.client.delete(f"{TASKS}/{old}")

    made = [send(bench, "k", cache=False).json()["task_id"] for _ in range(2)]

    assert old not in made
    assert (made[0], count(bench)) == (made[1], 1)


def test_another_tenants_task_is_neither_retried_nor_deleted(bench: Bench) -> None:
    task_id = finish(bench)

    assert bench.other().post(f"{TASKS}/{task_id}/retry").status_code == 404
    assert bench.other().delete(f"{TASKS}/{task_id}").status_code == 404
    assert bench.client.get(f"{TASKS}/{task_id}").status_code == 200
