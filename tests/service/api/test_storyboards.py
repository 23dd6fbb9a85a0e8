"""`/v1/t2v/storyboards`: shots checked together, queued together, followed, replaced."""

from typing import Any

import pytest

from tests.builders import make_result
from tests.desks import Bench, path_of
from tests.storyboards import join_one
from vidmill.api.desk import Desk
from vidmill.domain.job import Lane
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/storyboards` tries both databases."""

BOARDS = "/v1/t2v/storyboards"
TWO = [{"prompt": "red", "duration": 3.0, "cache": False}, {"prompt": "blue", "duration": 4.0}]


def create(bench: Bench, shots: list[Any] | None = None, **body: Any) -> dict[str, Any]:
    asked = {"shots": shots or TWO, "resolution": "480p", **body}
    answer = bench.client.post(BOARDS, json=asked)
    assert answer.status_code == 202, answer.text
    doc: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == doc["links"]["self"]
    return doc


def problems(bench: Bench, body: Any, path: str = BOARDS) -> list[tuple[str, str]]:
    answer = bench.client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    return [(one["pointer"], one["code"]) for one in answer.json()["errors"]]


def end_shots(bench: Bench, count: int = 2) -> None:
    for _ in range(count):
        bench.settle(bench.claim(), jobs.Succeeded(result=make_result()))


def join(bench: Bench, board_id: str) -> None:
    bench.client.get(f"{BOARDS}/{board_id}")  # moves it on
    assert join_one(bench)


def test_all_shots_are_queued_alike_and_priced_together(bench: Bench) -> None:
    doc = create(bench, name="spring", crossfade=0.5, frame_rate=25, priority="low")

    assert (doc["state"], doc["name"], doc["progress"], doc["revision"]) == (
        "rendering",
        "spring",
        0.0,
        1,
    )
    assert (doc["duration"], doc["price"], doc["frame_rate"]) == (6.5, {"credits": 70}, 25)
    assert [shot["crossfade"] for shot in doc["shots"]] == [0.5, 0.0]
    found = bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=9, is_oldest_first=True))
    assert [(job.spec.prompt, job.spec.fps, job.lane) for job in found] == [
        ("red", 25, Lane.BATCH),
        ("blue", 25, Lane.BATCH),
    ]
    assert [shot["task_id"] for shot in doc["shots"]] == [job.public_id for job in found]


def test_what_is_wrong_with_the_whole_and_with_every_shot_is_said_at_once(bench: Bench) -> None:
    body = {
        "resolution": "4k",
        "shots": [
            {"prompt": "", "duration": 99},
            {"prompt": "fine", "resolution": "480p", "crossfade": "long"},
            "no object",
            {"promt": "red", "crossfade": True},
        ],
    }

    assert problems(bench, body) == [
        ("#/resolution", "not_offered"),
        ("#/shots/0/prompt", "blank"),
        ("#/shots/0/duration", "max"),
        ("#/shots/1/resolution", "unsupported"),
        ("#/shots/1/crossfade", "type"),
        ("#/shots/2", "type"),
        ("#/shots/3/crossfade", "type"),
        ("#/shots/3/prompt", "required"),
        ("#/shots/3/promt", "unknown_field"),
    ]
    assert bench.client.get("/v1/t2v/tasks").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"shots": TWO[:1]}, ("#/shots", "min_items")),
        ({"shots": TWO * 11}, ("#/shots", "max_items")),
        ({"shots": [{"prompt": "x", "duration": 10.0}] * 13}, ("#/shots", "max")),
        ({"shots": TWO, "crossfade": 1.6}, ("#/crossfade", "max")),
        ({"shots": TWO * 2, "crossfade": -1}, ("#/crossfade", "min")),
        ({"shots": [{**TWO[0], "crossfade": 1.6}, TWO[1]]}, ("#/shots/0/crossfade", "max")),
        ({"shots": [TWO[0], {**TWO[1], "crossfade": -4}]}, ("#/shots/1/crossfade", "unsupported")),
        ({"shots": TWO, "name": " "}, ("#/name", "blank")),
        ({"shots": TWO, "webhook_url": "http://127.0.0.1/"}, ("#/webhook_url", "scheme")),
        (
            {"shots": [{"prompt": "x", "crossfade": 10**400}, TWO[0]]},
            ("#/shots/0/crossfade", "type"),
        ),
        ({"shot": TWO}, ("#/shots", "required")),
        ({"shots": "red"}, ("#/shots", "type")),
        ([TWO], ("#", "type")),
    ],
)
def test_no_storyboard_that_cannot_be_is_begun(
    bench: Bench, body: Any, expected: tuple[str, str]
) -> None:
    assert problems(bench, body)[0] == expected
    assert bench.client.get("/v1/t2v/tasks").json()["data"] == []


def test_a_wrong_field_of_the_whole_hides_nothing_that_is_wrong_with_shots(bench: Bench) -> None:
    body = {"fps": 24, "frame_rate": 24.5, "crossfade": 9, "shots": [{"prompt": ""}, *TWO]}

    assert problems(bench, body) == [
        ("#/frame_rate", "type"),
        ("#/fps", "unknown_field"),
        ("#/shots/0/prompt", "blank"),
    ]
    body["shots"] = TWO
    assert problems(bench, body) == [
        ("#/frame_rate", "type"),
        ("#/fps", "unknown_field"),
        ("#/crossfade", "max"),
    ]


def test_a_fade_too_long_for_several_joints_is_told_once_with_what_fits_all(bench: Bench) -> None:
    lengths = (4.0, 3.6, 3.2)
    body = {
        "crossfade": 2.5,
        "shots": [{"prompt": "red", "duration": length} for length in lengths],
    }

    (wrong,) = bench.client.post(BOARDS, json=body).json()["errors"]

    assert (wrong["pointer"], wrong["limit"]) == ("#/crossfade", 1.6)
    assert wrong["message"] == (
        "2.5 s is more than half of the shorter of shots 2 and 3; at most 1.6 s"
    )


def test_an_estimate_queues_nothing(bench: Bench) -> None:
    body = {"shots": TWO, "resolution": "480p", "crossfade": 1.0}

    answer = bench.client.post(f"{BOARDS}/estimate", json=body)

    assert answer.json() == {"duration": 6.0, "price": {"credits": 70}, "shots": [30, 40]}
    assert problems(bench, {"shots": TWO[:1]}, f"{BOARDS}/estimate")[0] == ("#/shots", "min_items")
    assert bench.client.get("/v1/t2v/tasks").json()["data"] == []


def test_a_create_sent_twice_under_one_key_makes_one(bench: Bench) -> None:
    headers = {"Idempotency-Key": "k"}

    first, again = (
        bench.client.post(BOARDS, json={"shots": TWO}, headers=headers) for _ in range(2)
    )

    assert first.json()["storyboard_id"] == again.json()["storyboard_id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(bench.client.get("/v1/t2v/tasks").json()["data"]) == 2


def test_the_joined_clip_is_served_by_a_signed_link(bench: Bench) -> None:
    board_id = create(bench)["storyboard_id"]
    end_shots(bench)
    assert bench.client.get(f"{BOARDS}/{board_id}").json()["state"] == "joining"

    join(bench, board_id)

    doc = bench.client.get(f"{BOARDS}/{board_id}").json()
    assert (doc["state"], doc["progress"], doc["result"]["revision"]) == ("completed", 1.0, 1)
    assert (doc["result"]["frames"], doc["result"]["duration"]) == (156, 6.5)
    file = bench.stranger().get(path_of(doc["result"]["url"]))
    assert (file.status_code, file.content) == (200, b"joined")
    part = bench.client.get(doc["links"]["content"], headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.content) == (206, b"joi")


def test_there_is_no_file_before_it_is_joined(bench: Bench) -> None:
    doc = create(bench)

    answer = bench.client.get(doc["links"]["content"])

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_shot_is_replaced_with_what_is_changed_and_a_new_seed(bench: Bench) -> None:
    shots = [{**TWO[0], "seed": 5, "negative_prompt": "rain"}, TWO[1]]
    doc = create(bench, shots, crossfade=0.5)
    end_shots(bench)
    join(bench, doc["storyboard_id"])

    answer = bench.client.post(doc["links"]["shots"][0], json={"prompt": "green", "duration": 5.0})

    after = answer.json()
    assert (answer.status_code, after["state"], after["revision"]) == (202, "rendering", 2)
    assert after["result"]["revision"] == 1
    assert (after["duration"], after["shots"][0]["crossfade"]) == (8.5, 0.5)
    assert after["shots"][1] == doc["shots"][1] | {"status": "completed", "progress": 1.0}
    task = bench.client.get(f"/v1/t2v/tasks/{after['shots'][0]['task_id']}").json()
    assert task["request"]["prompt"] == "green"
    assert task["request"]["negative_prompt"] == "rain"
    assert task["seed"] != 5
    assert task["parent_task_id"] == doc["shots"][0]["task_id"]


def test_a_shot_is_made_anew_without_a_body_unless_its_task_was_deleted(bench: Bench) -> None:
    doc = create(bench)
    end_shots(bench)
    url = doc["links"]["shots"][1]

    again = bench.client.post(url)
    bench.client.delete(f"/v1/t2v/tasks/{again.json()['shots'][1]['task_id']}")

    assert again.json()["shots"][1]["prompt"] == "blue"
    assert problems(bench, {}, url) == [("#/prompt", "required")]
    assert bench.client.post(url, json={"prompt": "blue"}).json()["shots"][1]["duration"] == 4.0


def test_a_replacement_is_refused_what_the_whole_decides(bench: Bench) -> None:
    doc = create(bench)
    url = doc["links"]["shots"][0]

    assert problems(bench, {"resolution": "720p", "seed": -1}, url) == [
        ("#/resolution", "unsupported"),
        ("#/seed", "min"),
    ]
    assert problems(bench, {"crossfade": 9.0}, url) == [("#/crossfade", "max")]
    assert problems(bench, {"crossfade": -4}, doc["links"]["shots"][1]) == [
        ("#/crossfade", "unsupported")
    ]
    for number in ("0", "3", "x", "٣"):
        answer = bench.client.post(f"{doc['links']['self']}/shots/{number}", json={})
        assert (answer.status_code, answer.json()["code"]) == (404, "storyboard_not_found")


def test_a_fade_alone_makes_no_task(bench: Bench) -> None:
    doc = create(bench)
    end_shots(bench)
    join(bench, doc["storyboard_id"])

    answer = bench.client.post(doc["links"]["shots"][0], json={"crossfade": 1.5})

    after = answer.json()
    assert (answer.status_code, after["state"], after["duration"]) == (202, "joining", 5.5)
    assert after["price"] == doc["price"]
    assert len(bench.client.get("/v1/t2v/tasks").json()["data"]) == 2
    assert problems(bench, {"crossfade": None, "seed": -1}, doc["links"]["shots"][0]) == [
        ("#/seed", "min")
    ]


def test_cancel_and_delete(bench: Bench) -> None:
    doc = create(bench)
    url = doc["links"]["self"]
    early = bench.client.delete(url)

    cancelled = bench.client.post(doc["links"]["cancel"])
    again = bench.client.post(doc["links"]["cancel"])
    gone = bench.client.delete(url)

    assert (early.status_code, early.json()["code"]) == (409, "storyboard_state")
    assert cancelled.json()["state"] == "cancelled"
    assert [shot["status"] for shot in cancelled.json()["shots"]] == ["cancelled"] * 2
    assert (again.status_code, gone.status_code) == (409, 204)
    assert bench.client.get(url).status_code == 404
    assert len(bench.client.get("/v1/t2v/tasks").json()["data"]) == 2


def test_the_list_goes_on_where_it_stopped(bench: Bench) -> None:
    names = [create(bench, name=f"board {n}")["name"] for n in range(3)]

    first = bench.client.get(BOARDS, params={"limit": 2}).json()
    rest = bench.client.get(BOARDS, params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [one["name"] for one in [*first["data"], *rest["data"]]] == names[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_progress_is_that_of_its_shots(bench: Bench) -> None:
    doc = create(bench)
    end_shots(bench, 1)

    assert bench.client.get(doc["links"]["self"]).json()["progress"] == pytest.approx(
        0.9 * 3 / 7, abs=1e-4
    )


def test_a_shot_of_which_nothing_came_says_why(bench: Bench) -> None:
    doc = create(bench)
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="it was black"))
    end_shots(bench, 1)

    after = bench.client.get(doc["links"]["self"]).json()

    assert after["state"] == "failed"
    assert after["error"]["code"] == "shot_missing"
    assert after["shots"][0]["error"]["code"] == "bad_output"


def test_what_the_body_may_weigh_grows_with_the_shots(bench: Bench) -> None:
    long = {"prompt": "名" * 200, "negative_prompt": "名" * 500, "duration": 3.0}
    body = {"shots": [long] * 20}

    assert bench.client.post(f"{BOARDS}/estimate", json=body).status_code == 200
    assert Desk.of(bench.app).app.settings.body_max_bytes < 20 * 700 * 6
