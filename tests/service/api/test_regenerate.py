"""Another one like this; why this one is as it is; and waiting for it in one request."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest

from tests.desks import Bench, finish, make_bench
from vidmill.api.dialects.native_models import Explanation
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

TASKS = "/v1/t2v/tasks"
GENERATE = "/v1/t2v/generate"


def regenerate(bench: Bench, task_id: str, **given: Any) -> dict[str, Any]:
    answer = bench.client.post(f"{TASKS}/{task_id}/regenerate", **given)
    assert answer.status_code == 202, answer.text
    task: dict[str, Any] = bench.client.get(f"{TASKS}/{answer.json()['task_id']}").json()
    return task


def test_a_regenerated_clip_is_the_same_request_with_another_seed(bench: Bench) -> None:
    old = finish(bench, seed=7, duration=4, metadata={"shop": "a"}, aspect_ratio="9:16")

    new = regenerate(bench, old)

    assert (new["parent_task_id"], new["status"]) == (old, "queued")
    parent = bench.client.get(f"{TASKS}/{old}").json()
    assert new["seed"] != 7
    assert {**new["request"], "seed": 7} == parent["request"]


def test_what_the_body_names_is_changed(bench: Bench) -> None:
    old = finish(bench, seed=7, duration=4)

    new = regenerate(bench, old, json={"prompt": "a blue ball", "seed": 9})

    assert (new["prompt"], new["seed"], new["duration"]) == ("a blue ball", 9, 4.0)


def test_a_clip_with_a_dialects_long_prompt_is_varied_within_that_dialects_limit(
    bench: Bench,
) -> None:
    long = "a red ball " + "bounces " * 60
    made = bench.client.post("/v1/videos", json={"prompt": long, "model": "tiny", "seconds": "4"})
    video_id = made.json()["id"]

    new = regenerate(bench, video_id, json={"seed": 9})
    another = regenerate(bench, video_id, json={"prompt": "blue " * 100})

    assert (new["prompt"], new["seed"]) == (long.strip(), 9)
    assert another["prompt"] == ("blue " * 100).strip()
    path = f"{TASKS}/{video_id}/regenerate"
    answer = bench.client.post(path, json={"prompt": "x" * 801})
    assert answer.json()["errors"][0]["limit"] == 800
    own = f"{TASKS}/{bench.generate()['task_id']}/regenerate"
    assert bench.client.post(own, json={"prompt": "x" * 201}).json()["errors"][0]["limit"] == 200


def test_a_task_that_still_runs_may_be_varied_already(bench: Bench) -> None:
    old = bench.generate()["task_id"]
    assert regenerate(bench, old)["parent_task_id"] == old


def test_a_wrong_change_is_refused_by_name_and_nothing_is_made(bench: Bench) -> None:
    old = bench.generate()["task_id"]

    answer = bench.client.post(f"{TASKS}/{old}/regenerate", json={"duration": 99, "sed": 1})

    assert answer.status_code == 422
    pointers = {wrong["pointer"] for wrong in answer.json()["errors"]}
    assert pointers == {"#/duration", "#/sed"}
    assert len(bench.client.get(TASKS).json()["data"]) == 1


def test_a_regenerate_under_one_key_happens_once(bench: Bench) -> None:
    old, headers = bench.generate()["task_id"], {"Idempotency-Key": "k"}
    path = f"{TASKS}/{old}/regenerate"

    made = {bench.client.post(path, headers=headers).json()["task_id"] for _ in range(2)}
    other = bench.client.post(path, headers=headers, json={"prompt": "x"})

    assert len(made) == 1
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_another_tenants_task_is_not_varied(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    assert bench.other().post(f"{TASKS}/{task_id}/regenerate").status_code == 404


def test_an_explanation_tells_what_decided_the_pixels(bench: Bench) -> None:
    task_id = finish(bench, prompt="a red ball", negative_prompt="rain", seed=7)

    answer = bench.client.get(f"{TASKS}/{task_id}/explain")

    told = answer.json()
    Explanation.model_validate_json(answer.content, strict=True)
    assert told["prompt"] == {"asked": "a red ball", "used": "a red ball"}
    assert told["negative_prompt"] == {"asked": "rain", "used": "rain"}
    assert (told["seed"], told["seed_was_asked_for"], told["files_made_by"]) == (7, True, task_id)
    assert (told["steps"], told["guidance_scale"], told["loras"]) == (12, 3.0, [])
    assert [run["outcome"] for run in told["attempts"]] == ["succeeded"]
    again = bench.client.get(
        f"{TASKS}/{task_id}/explain", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304


def test_an_explanation_names_the_task_whose_run_made_the_files(bench: Bench) -> None:
    first = finish(bench, cache=True, seed=7)
    second = bench.client.post(GENERATE, json={"prompt": "a red ball", "seed": 7}).json()
    told = bench.client.get(f"{TASKS}/{second['task_id']}/explain").json()
    assert told["files_made_by"] == first


def test_who_prefers_to_wait_is_answered_at_the_end(bench: Bench) -> None:
    def fail() -> None:
        bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))

    timer = threading.Timer(0.5, fail)
    timer.start()
    answer = bench.client.post(
        GENERATE, json={"prompt": "x"}, headers={"Prefer": "respond-async, wait=20"}
    )
    timer.join()

    assert (answer.status_code, answer.json()["status"]) == (200, "failed")


def test_a_wait_that_is_too_short_is_answered_with_how_it_stands(bench: Bench) -> None:
    answer = bench.client.post(GENERATE, json={"prompt": "x"}, headers={"Prefer": "wait=0.2"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


def test_where_nobody_else_may_wait_the_task_is_made_all_the_same(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, watchers_max=1)
    waits = {"Prefer": "wait=20"}

    with bench.client, ThreadPoolExecutor(2) as threads:  # one event loop for both
        sent = [
            threads.submit(bench.client.post, GENERATE, json={"prompt": name}, headers=waits)
            for name in "xy"
        ]
        refused = next(as_completed(sent)).result()
        for job in (bench.claim(), bench.claim()):
            bench.settle(job, jobs.Failed(code="bad_output", message="black"))

    answers = [future.result() for future in sent]
    assert (refused.status_code, refused.json()["status"]) == (202, "queued")
    assert sorted(answer.status_code for answer in answers) == [200, 202]
    bench.close()


def test_who_waits_for_a_task_that_is_deleted_hears_that_it_was_made(bench: Bench) -> None:
    def delete() -> None:
        (task,) = bench.client.get(TASKS).json()["data"]
        bench.client.delete(f"{TASKS}/{task['task_id']}")

    timer = threading.Timer(0.5, delete)
    timer.start()
    answer = bench.client.post(GENERATE, json={"prompt": "x"}, headers={"Prefer": "wait=20"})
    timer.join()

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


def test_an_unchanged_list_is_not_sent_again(bench: Bench) -> None:
    bench.generate()
    first = bench.client.get(TASKS)
    headers = {"If-None-Match": first.headers["etag"]}

    assert bench.client.get(TASKS, headers=headers).status_code == 304
    bench.generate()
    assert bench.client.get(TASKS, headers=headers).status_code == 200


def test_a_task_answers_to_all_its_names(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    digits = task_id.removeprefix("t2v_")
    for name in (task_id, f"video_{digits}", digits):
        assert bench.client.get(f"{TASKS}/{name}").json()["task_id"] == task_id
        status = bench.client.get("/v1/t2v/status", params={"task_id": name})
        assert status.json()["task_id"] == task_id
