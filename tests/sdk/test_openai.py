"""The unmodified `openai` SDKs against our OpenAI dialect, sync and async."""

import base64
import threading
import time
from typing import Any

import httpx2
import pytest

from tests.desks import KEY, OTHER_KEY, Bench
from tests.faults.proxy import FaultProxy, Mode
from tests.sdk.openai_surfaces import JSON_BODY, Sdk
from tests.servers import CONTENTS, TYPES, Server, claim_when_queued, deliver, fail, until, working
from vidmill.api.dialects.openai_models import OpenAIVideo
from vidmill.domain.job import Job, Lane
from vidmill.store import accounts, jobs


def job_of(bench: Bench, video: dict[str, Any]) -> Job:
    task_id = video["id"].replace("video_", "t2v_")
    job = bench.app.db.read(lambda conn: jobs.get(conn, task_id, 1))
    assert job is not None
    return job


def schema_holds(video: dict[str, Any]) -> None:
    """The SDK validates nothing, so the schema is held against what it got."""
    body = {name: value for name, value in video.items() if name != "_request_id"}
    OpenAIVideo.model_validate(body, strict=True)


def test_a_video_is_created_in_json_and_as_a_form_alike(sdk: Sdk, bench: Bench) -> None:
    extra = sdk.extra(seed=7, enable_physics=False, negative_prompt="雨", cache=False)
    asked = {"prompt": "一只红色的球", "seconds": "4", "size": "832x480", **extra}

    plain = sdk.create(**asked)
    as_json = sdk.create(**asked, extra_headers=JSON_BODY)

    for video in (plain, as_json):
        schema_holds(video)
        assert (video["status"], video["seconds"], video["size"]) == ("queued", "4", "832x480")
        spec = job_of(bench, video).spec
        assert (spec.prompt, spec.negative_prompt, spec.seed) == ("一只红色的球", "雨", 7)
    assert job_of(bench, plain).spec == job_of(bench, as_json).spec


def test_what_is_not_said_is_openais_own_default(sdk: Sdk, bench: Bench) -> None:
    video = sdk.create()

    assert (video["seconds"], video["size"], video["model"]) == ("4", "720x1280", "tiny")
    assert str(job_of(bench, video).spec.native) == "48x80"
    assert video["_request_id"].startswith("req_")


@pytest.mark.parametrize("seconds", ["5", 5, 5.5, "10"])
def test_seconds_are_text_or_numbers(newest: Sdk, bench: Bench, seconds: Any) -> None:
    video = newest.create(seconds=seconds)
    assert job_of(bench, video).spec.duration_s == float(seconds)
    assert video["seconds"] == f"{float(seconds):g}"


def test_a_video_is_followed_to_its_end_and_downloaded(sdk: Sdk, bench: Bench) -> None:
    with working(bench, deliver):
        video = sdk.ask("videos.create_and_poll", prompt="a red ball", poll_interval_ms=100)

    schema_holds(video)
    assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None)
    for variant, name in (("video", "video"), ("thumbnail", "poster"), ("spritesheet", "preview")):
        file = sdk.ask("download", video_id=video["id"], variant=variant)
        assert file["agree"]
        assert base64.b64decode(file["data"]) == CONTENTS[name]
        assert file["content_type"] == TYPES[name]


def test_progress_and_the_pace_of_looking_are_told(sdk: Sdk, bench: Bench, server: Server) -> None:
    video = sdk.create()
    claim_when_queued(bench)

    running = sdk.ask("videos.retrieve", args=[video["id"]])
    raw = httpx2.get(
        f"{server.url}/v1/videos/{video['id']}", headers={"Authorization": f"Bearer {KEY}"}
    )

    assert running["status"] == "in_progress"
    assert 0 <= running["progress"] < 100
    assert 1000 <= int(raw.headers["openai-poll-after-ms"]) <= 10_000


def test_a_failed_and_a_cancelled_video_come_back_with_a_code(sdk: Sdk, bench: Bench) -> None:
    with working(bench, fail):
        failed = sdk.ask("videos.create_and_poll", prompt="x", poll_interval_ms=100)
    cancelled = sdk.create()
    bench.client.post(f"/v1/t2v/tasks/{cancelled['id']}/cancel")
    cancelled = sdk.ask("videos.retrieve", args=[cancelled["id"]])

    schema_holds(failed)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "generation_failed")
    assert "black" in failed["error"]["message"]
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")


def test_the_pager_walks_all_pages_both_ways(sdk: Sdk) -> None:
    ids = [sdk.create(prompt=f"ball {number}")["id"] for number in range(5)]

    assert sdk.ask("walk", limit=2) == ids[::-1]
    assert sdk.ask("walk", limit=2, order="asc") == ids
    page = sdk.ask("videos.list", limit=5)
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, ids[4], ids[0])


def test_a_deleted_video_is_gone_whatever_it_did(sdk: Sdk, bench: Bench) -> None:
    waiting, running = sdk.create(prompt="one"), sdk.create(prompt="two")
    bench.claim()

    for video in (waiting, running):
        done = sdk.ask("videos.delete", args=[video["id"]])
        assert (done["id"], done["deleted"]) == (video["id"], True)
        lost = sdk.ask("videos.retrieve", args=[video["id"]])
        assert (lost["raised"], lost["code"]) == ("NotFoundError", "not_found")


def test_a_remix_keeps_all_but_the_prompt(sdk: Sdk, bench: Bench) -> None:
    source = sdk.create(seconds="5", size="1280x720", model="sora-2")
    remix = sdk.ask("videos.remix", args=[source["id"]], prompt="a blue ball")

    schema_holds(remix)
    assert remix["remixed_from_video_id"] == source["id"]
    assert (remix["model"], remix["size"], remix["seconds"]) == ("sora-2", "1280x720", "5")
    old, new = job_of(bench, source).spec, job_of(bench, remix).spec
    assert (new.prompt, new.seed) == ("a blue ball", old.seed)


def test_the_same_prompt_again_is_another_video_unless_a_seed_says_otherwise(
    sdk: Sdk, bench: Bench
) -> None:
    with working(bench, deliver, deliver):
        plain = [sdk.ask("videos.create_and_poll", prompt="x", poll_interval_ms=50)["seed"]]
        again = sdk.create(prompt="x")
        seeded = sdk.create(prompt="y", **sdk.extra(seed=7))
        plain.append(again["seed"])
    assert len(set(plain)) == 2
    assert again["status"] == "queued"
    claim_when_queued(bench)
    assert sdk.create(prompt="y", **sdk.extra(seed=7))["seed"] == seeded["seed"]


REFUSALS = [
    ({"prompt": ""}, 400, "invalid_value", "prompt"),
    ({"prompt": "x" * 801}, 400, "string_above_max_length", "prompt"),
    ({"prompt": "x", "size": "1792x1024"}, 400, "invalid_value", "size"),
    ({"prompt": "x", "size": "1920x1080"}, 400, "invalid_value", "size"),
    ({"prompt": "x", "seconds": "12"}, 400, "invalid_value", "seconds"),
    ({"prompt": "x", "seconds": "soon"}, 400, "invalid_value", "seconds"),
    ({"prompt": "x", "model": "sora-9"}, 404, "model_not_found", "model"),
    ({"prompt": "x", "extra_body": {"seed": "red"}}, 400, "invalid_value", "seed"),
    ({"prompt": "x", "extra_body": {"sed": 7}}, 400, "unknown_parameter", "sed"),
    (
        {"prompt": "x", "extra_body": {"guidance_scale": 9.5}},
        400,
        "invalid_value",
        "guidance_scale",
    ),
    (
        {"prompt": "x", "extra_body": {"webhook_url": "http://10.0.0.1/"}},
        400,
        "invalid_value",
        "webhook_url",
    ),
]


@pytest.mark.parametrize(("asked", "status", "code", "param"), REFUSALS)
def test_a_wrong_request_is_refused_once_by_name(
    newest: Sdk, server: Server, *, asked: dict[str, Any], status: int, code: str, param: str
) -> None:
    before = server.num_answered
    for headers in ({}, JSON_BODY):
        refused = newest.ask("videos.create", **asked, extra_headers=headers)
        assert (refused["status"], refused["code"], refused["param"]) == (status, code, param)
        assert refused["message"]
    assert server.num_answered == before + 2
    assert newest.ask("walk") == []


def test_eight_hundred_characters_are_taken(sdk: Sdk) -> None:
    assert sdk.create(prompt="球" * 800)["status"] == "queued"


def test_what_needs_pictures_or_clips_is_refused_with_the_reason(server: Server) -> None:
    def refusal(path: str, **body: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx2.post(f"{server.url}/v1/videos{path}", headers=headers, **body)
        assert answer.status_code == 400, answer.text
        error: dict[str, Any] = answer.json()["error"]
        return error

    picture = {"input_reference": ("a.png", b"png", "image/png")}
    refused = [
        refusal("", data={"prompt": "x"}, files=picture),
        refusal("", json={"prompt": "x", "input_reference": {"file_id": "f"}}),
        refusal("/edits", data={"prompt": "x"}, files={"video": ("a.mp4", b"mp4", "video/mp4")}),
        refusal("/extensions", json={"prompt": "x", "seconds": "4"}),
        refusal("/characters", json={"name": "x"}),
    ]

    assert {error["code"] for error in refused} == {"unsupported_operation"}
    assert all("text alone" in error["message"] for error in refused)


@pytest.mark.parametrize("key", ["wrong", "vm_live_nothing"])
def test_a_wrong_key_is_told_once(sdk: Sdk, server: Server, key: str) -> None:
    refused = sdk.ask("videos.list", client={"api_key": key})
    assert (refused["raised"], refused["code"]) == ("AuthenticationError", "invalid_api_key")
    assert server.num_answered == 1


def test_a_video_that_is_not_ready_is_asked_for_once(sdk: Sdk, server: Server) -> None:
    video = sdk.create()
    before = server.num_answered
    refused = sdk.ask("videos.download_content", args=[video["id"]])
    assert (refused["status"], refused["code"]) == (400, "video_not_ready")
    assert server.num_answered == before + 1


def test_a_full_queue_is_tried_again(newest: Sdk, bench: Bench, server: Server) -> None:
    bench.app.db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=1))
    newest.create()
    before = server.num_answered
    refused = newest.ask("videos.create", prompt="x", client={"max_retries": 1})
    assert (refused["status"], refused["code"]) == (503, "overloaded")
    assert server.num_answered == before + 2


def test_a_quota_that_is_used_up_is_told_once(sdk: Sdk, bench: Bench, server: Server) -> None:
    plan = accounts.Plan(name="default", lane=Lane.VIP, clips_per_day=1)
    bench.app.db.write(lambda uow: accounts.save_plan(uow, plan))
    sdk.create()
    before = server.num_answered
    refused = sdk.ask("videos.create", prompt="x")
    assert (refused["raised"], refused["code"]) == ("RateLimitError", "insufficient_quota")
    assert server.num_answered == before + 1


def test_a_client_that_asks_too_often_waits_as_long_as_it_is_told(
    sdk: Sdk, bench: Bench, server: Server
) -> None:
    plan = accounts.Plan(name="default", lane=Lane.VIP, key_submits_per_min=1)
    bench.app.db.write(lambda uow: accounts.save_plan(uow, plan))
    bench.clock.advance(58 - bench.clock.now % 60)
    sdk.create()
    headers = {"Authorization": f"Bearer {KEY}"}
    raw = httpx2.post(f"{server.url}/v1/videos", json={"prompt": "x"}, headers=headers)
    before, began = server.num_answered, time.monotonic()

    def turn_minute() -> None:
        until(lambda: server.num_answered > before)
        bench.clock.advance(2)

    thread = threading.Thread(target=turn_minute)
    thread.start()
    video = sdk.create()
    thread.join()

    assert (raw.status_code, raw.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert (raw.headers["retry-after"], raw.headers["retry-after-ms"]) == ("2", "2000")
    assert video["status"] == "queued"
    assert server.num_answered == before + 2
    assert time.monotonic() - began >= 2  # of itself it would have come back within half a second


def test_a_create_that_is_sent_again_makes_one_video(server: Server, bench: Bench) -> None:
    def send(tries: int) -> str:
        headers = {"Authorization": f"Bearer {KEY}", "x-stainless-retry-count": str(tries)}
        answer = httpx2.post(f"{server.url}/v1/videos", json={"prompt": "x"}, headers=headers)
        return str(answer.json()["id"])

    first = send(0)
    assert {send(1), send(2)} == {first}
    another = send(0)
    assert another != first
    assert send(1) == another
    bench.clock.advance(601)
    assert send(1) != another


def test_a_client_that_gives_up_too_soon_makes_one_video(
    newest: Sdk, bench: Bench, server: Server
) -> None:
    before = server.num_answered
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        proxy.switch(Mode.HALF_OPEN)
        options = {"timeout": 1.0, "base_url": f"http://127.0.0.1:{proxy.port}/v1"}
        lost = newest.ask("videos.create", prompt="x", client=options)
    assert lost["raised"] == "APITimeoutError"
    until(lambda: server.num_answered == before + 3)
    assert len(bench.client.get("/v1/t2v/tasks").json()["data"]) == 1


def test_models_are_listed_by_every_name(newest: Sdk) -> None:
    found = newest.ask("models.list")
    assert [model["id"] for model in found["data"]] == ["tiny", "sora-2"]
    assert newest.ask("models.retrieve", args=["sora-2"])["object"] == "model"
    assert newest.ask("models.retrieve", args=["gpt-9"])["code"] == "model_not_found"


def test_another_tenants_video_is_not_there(newest: Sdk) -> None:
    video = newest.create()
    lost = newest.ask("videos.retrieve", args=[video["id"]], client={"api_key": OTHER_KEY})
    unknown = newest.ask("videos.retrieve", args=["video_" + "0" * 32])
    assert (lost["status"], unknown["status"]) == (404, 404)
    assert newest.ask("walk", client={"api_key": OTHER_KEY}) == []
