"""The DashScope dialect on the wire; its SDKs are in tests/sdk."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.desks import Bench, finish, make_bench
from vidmill.domain.job import JobState
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

SUBMIT = "/api/v1/services/aigc/video-generation/video-synthesis"
TASKS = "/api/v1/tasks"
ASYNC = {"X-DashScope-Async": "enable"}


def submit(bench: Bench, **given: Any) -> httpx2.Response:
    """Submit a clip; *given* are the headers, and parts of the body that are not usual."""
    headers = {**ASYNC, **given.pop("headers", {})}
    body = {"model": "wan2.2-t2v-plus", "input": {"prompt": "a red ball"}, **given}
    return bench.client.post(SUBMIT, json=body, headers=headers)


def submitted(bench: Bench, **given: Any) -> str:
    answer = submit(bench, **given)
    assert answer.status_code == 200, answer.text
    task_id: str = answer.json()["output"]["task_id"]
    return task_id


def without_id(answer: httpx2.Response) -> dict[str, Any]:
    doc: dict[str, Any] = answer.json()
    assert doc.pop("request_id")
    return doc


def test_a_submit_answers_200_with_a_pending_task(bench: Bench) -> None:
    answer = submit(bench)

    assert answer.status_code == 200
    doc = answer.json()
    assert doc["request_id"] == answer.headers["x-request-id"]
    task = bench.client.get(f"/v1/t2v/tasks/{doc['output']['task_id']}").json()
    assert doc["output"] == {
        "task_id": task["task_id"].removeprefix("t2v_"),
        "task_status": "PENDING",
    }


def test_a_submit_that_does_not_ask_for_a_task_is_refused(bench: Bench) -> None:
    answer = submit(bench, headers={"X-DashScope-Async": "disable"})

    assert (answer.status_code, answer.json()["code"]) == (403, "AccessDenied")
    assert "X-DashScope-Async: enable" in answer.json()["message"]


@pytest.mark.parametrize("path", ["", "?size=832*480&duration=5"])
def test_a_path_may_end_in_a_slash(bench: Bench, path: str) -> None:
    task_id = submitted(bench)

    plain = bench.client.get(f"{TASKS}/{task_id}")
    slash = bench.client.get(f"{TASKS}/{task_id}/{path}", follow_redirects=False)

    assert (slash.status_code, without_id(slash)) == (200, without_id(plain))
    assert bench.client.get(f"{TASKS}/").json()["total"] == 1
    cancelled = bench.client.post(f"{TASKS}/{task_id}/cancel/", json={"model": "", "input": ""})
    assert without_id(cancelled) == {"output": {"task_id": task_id, "task_status": "CANCELED"}}


def test_a_finished_task_tells_all_there_is(bench: Bench) -> None:
    task_id = finish(bench).removeprefix("t2v_")

    doc = bench.client.get(f"{TASKS}/{task_id}").json()

    output = doc["output"]
    assert output.pop("video_url").startswith("http://files.test/files/")
    assert output == {
        "task_id": task_id,
        "task_status": "SUCCEEDED",
        "submit_time": "2027-01-15 08:00:00.000",
        "scheduled_time": "2027-01-15 08:00:00.000",
        "end_time": "2027-01-15 08:00:00.000",
        "orig_prompt": "a red ball",
        "actual_prompt": "a red ball",
        "progress": 1.0,
    }
    assert doc["usage"]["size"] == "832*480"
    assert "code" not in doc  # the 2.x client takes one for an error


def test_links_live_for_a_day(bench: Bench) -> None:
    task_id = finish(bench)
    url = bench.client.get(f"{TASKS}/{task_id}").json()["output"]["video_url"]
    path = url.removeprefix("http://files.test")
    bench.clock.advance(0.9 * 86_400)

    assert bench.stranger().get(path).status_code == 200
    bench.clock.advance(0.1 * 86_400)
    assert bench.stranger().get(path).status_code == 410


def test_a_task_that_waits_for_its_retry_is_running(bench: Bench) -> None:
    task_id = submitted(bench)
    outcome = jobs.Delayed(code="engine_failed", message="it broke", not_before=bench.clock() + 10)
    bench.settle(bench.claim(), outcome)

    assert bench.client.get(f"{TASKS}/{task_id}").json()["output"]["task_status"] == "RUNNING"
    assert bench.client.post(f"{TASKS}/{task_id}/cancel").status_code == 400


def test_cancelling_what_is_another_tenants_tells_no_more_than_what_is_nobodys(
    bench: Bench,
) -> None:
    theirs = submitted(bench)
    other = bench.other()

    refused = other.post(f"{TASKS}/{theirs}/cancel")
    nobodys = other.post(f"{TASKS}/{'0' * 32}/cancel")

    assert (refused.status_code, refused.json()["code"]) == (400, "UnsupportedOperation")
    assert without_id(refused) == without_id(nobodys)
    assert other.get(TASKS).json()["total"] == 0
    assert other.get(f"{TASKS}/{theirs}").json()["output"]["task_status"] == "UNKNOWN"


def test_an_erased_task_is_unknown(bench: Bench) -> None:
    task_id = submitted(bench)
    bench.client.delete(f"/v1/t2v/tasks/{task_id}")

    assert bench.client.get(f"{TASKS}/{task_id}").json()["output"]["task_status"] == "UNKNOWN"
    assert bench.client.get(TASKS).json()["data"] == []


def test_rows_of_a_list_suit_both_generations_of_clients(bench: Bench) -> None:
    task_id = submitted(bench)

    doc = bench.client.get(TASKS, params={"page_size": 1, "region": "cn-beijing"}).json()

    assert (
        doc["data"]
        == doc["tasks"]
        == [
            {
                "task_id": task_id,
                "status": "PENDING",
                "task_status": "PENDING",
                "model_name": "tiny",
                "gmt_create": 1_800_000_000_000,
                "start_time": None,
                "end_time": None,
            }
        ]
    )
    counts = {name: doc[name] for name in ("total", "page_no", "page_size", "total_page")}
    assert counts == {"total": 1, "page_no": 1, "page_size": 1, "total_page": 1}


def test_every_wrong_parameter_of_a_list_is_named(bench: Bench) -> None:
    asked = {"page_no": "0", "page_size": "101", "status": "DONE", "start_time": "yesterday"}
    answer = bench.client.get(TASKS, params=asked)

    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidParameter")
    assert [name for name in asked if f"{name}: " in answer.json()["message"]] == [*asked]


def test_a_list_ends_after_so_many_and_says_how_to_see_more(bench: Bench) -> None:
    last, beyond = (
        bench.client.get(TASKS, params={"page_no": number, "page_size": 100})
        for number in (100, 101)
    )

    assert (last.status_code, last.json()["total"]) == (200, 0)
    assert (beyond.status_code, beyond.json()["code"]) == (400, "InvalidParameter")
    assert "page_no: a list shows the newest 10000 tasks" in beyond.json()["message"]


WRONG_BODIES = {
    "not an object": ([], "the body must be a JSON object"),
    "no model": ({"input": {"prompt": "x"}}, "model: it is missing; add it"),
    "no input": ({"model": "tiny"}, "input: it is missing; add it"),
    "no prompt": ({"model": "tiny", "input": {}}, "prompt: it is missing; add it"),
    "more": ({"model": "tiny", "input": {"prompt": "x"}, "mode": 1}, "mode: there is no such"),
    "twice": (
        {"model": "tiny", "input": {"prompt": "x", "seed": 1}, "parameters": {"seed": 2}},
        "seed: it is in `input` and in `parameters`",
    ),
    "size and tier": (
        {
            "model": "tiny",
            "input": {"prompt": "x"},
            "parameters": {"size": "832*480", "ratio": "1:1"},
        },
        "size: give either",
    ),
    "size": (
        {"model": "tiny", "input": {"prompt": "x"}, "parameters": {"size": 720}},
        "size: '720' is not offered; choose one of: 832*480, 480*832",
    ),
    "two at once": (
        {
            "model": "tiny",
            "input": {"prompt": "x", "img_url": "https://x"},
            "parameters": {"duration": 60, "watermark": True},
        },
        "img_url: clips are made from text alone",
    ),
}


@pytest.mark.parametrize("case", WRONG_BODIES)
def test_a_wrong_body_is_refused_by_name(bench: Bench, case: str) -> None:
    body, message = WRONG_BODIES[case]

    answer = bench.client.post(SUBMIT, json=body, headers=ASYNC)

    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidParameter")
    assert message in answer.json()["message"]


def test_all_that_is_wrong_is_said_at_once(bench: Bench) -> None:
    body, _ = WRONG_BODIES["two at once"]

    message = bench.client.post(SUBMIT, json=body, headers=ASYNC).json()["message"]

    assert [name for name in ("img_url: ", "duration: ", "watermark: ") if name in message] == [
        "img_url: ",
        "duration: ",
        "watermark: ",
    ]


def test_the_same_request_under_the_same_key_is_the_same_task(bench: Bench) -> None:
    key = {"Idempotency-Key": "k-1"}
    first, again = submitted(bench, headers=key), submitted(bench, headers=key)
    other = submit(bench, headers=key, input={"prompt": "a blue ball"})

    assert first == again
    assert (other.status_code, other.json()["code"]) == (400, "InvalidParameter")


def test_errors_of_the_framework_look_like_the_dialects(bench: Bench) -> None:
    unknown = bench.client.get("/api/v1/services/aigc/text-generation/generation")
    wrong_method = bench.client.delete(f"{TASKS}/{'0' * 32}/cancel")
    no_json = bench.client.post(SUBMIT, content=b"{", headers=ASYNC)
    no_key = bench.stranger().get(TASKS)

    assert (unknown.status_code, unknown.json()["code"]) == (404, "NotFound")
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "MethodNotAllowed")
    assert (no_json.status_code, no_json.json()["code"]) == (400, "InvalidParameter")
    assert (no_key.status_code, no_key.json()["code"]) == (401, "InvalidApiKey")
    for answer in (unknown, wrong_method, no_json, no_key):
        assert {*answer.json()} == {"request_id", "code", "message"}
        assert answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/services/aigc/image2video/video-synthesis"),
        ("GET", "/api/v1/uploads?action=getPolicy&model=wan2.2-i2v-plus"),
    ],
)
def test_what_begins_with_an_image_is_refused_and_told_why(
    bench: Bench, method: str, path: str
) -> None:
    answer = bench.client.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidParameter")
    assert "text alone" in answer.json()["message"]


def test_a_full_queue_is_a_service_that_is_busy(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, cap_queued=1)
    submitted(bench)

    answer = submit(bench)
    bench.close()

    assert (answer.status_code, answer.json()["code"]) == (503, "ServiceUnavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_a_task_made_here_is_seen_in_the_native_api_and_the_other_way_round(bench: Bench) -> None:
    ours = bench.generate()["task_id"]
    theirs = submitted(bench)

    assert bench.client.get(f"{TASKS}/{ours}").json()["output"]["task_status"] == "PENDING"
    bench.client.post(f"/v1/t2v/tasks/{theirs}/cancel")
    told = bench.client.get(f"{TASKS}/{theirs}").json()["output"]
    assert told["task_status"] == "CANCELED"
    assert bench.claim().state is JobState.RUNNING
