"""`POST /v1/t2v/tasks/{id}/run-next`: one's own queue is one's own to order."""

from typing import Any

from starlette.testclient import TestClient

from tests.desks import Bench, finish


def run_next(client: TestClient, doc: Any) -> Any:
    return client.post(f"/v1/t2v/tasks/{doc['task_id']}/run-next")


def test_the_chosen_task_is_the_users_next(bench: Bench) -> None:
    docs = [bench.generate() for _ in range(3)]

    answer = run_next(bench.client, docs[2])

    assert (answer.status_code, answer.json()["task_id"]) == (200, docs[2]["task_id"])
    order = [bench.claim().public_id for _ in range(3)]
    assert order == [docs[2]["task_id"], docs[0]["task_id"], docs[1]["task_id"]]


def test_the_last_chosen_comes_first(bench: Bench) -> None:
    docs = [bench.generate() for _ in range(3)]
    for doc in (docs[1], docs[2]):
        run_next(bench.client, doc)

    order = [bench.claim().public_id for _ in range(3)]

    assert order == [docs[2]["task_id"], docs[1]["task_id"], docs[0]["task_id"]]


def test_a_colleague_has_no_say_in_it(bench: Bench) -> None:
    answer = run_next(bench.colleague(), bench.generate())

    assert (answer.status_code, answer.json()["code"]) == (409, "task_not_queued")
    assert "another user" in answer.json()["detail"]


def test_other_tenants_tasks_do_not_exist(bench: Bench) -> None:
    answer = run_next(bench.other(), bench.generate())

    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    assert run_next(bench.client, {"task_id": "t2v_nonsense"}).status_code == 404
    assert run_next(bench.stranger(), {"task_id": "t2v_nonsense"}).status_code == 401


def test_what_does_not_wait_cannot_be_next(bench: Bench) -> None:
    done = {"task_id": finish(bench)}
    running = bench.generate()
    bench.claim()
    leader, twin = (bench.generate(cache=True) for _ in range(2))

    answers = [run_next(bench.client, doc) for doc in (done, running, twin)]

    assert [answer.status_code for answer in answers] == [409, 409, 409]
    assert "identical" in answers[2].json()["detail"]
    assert run_next(bench.client, leader).status_code == 200
