"""`POST /v1/t2v/generate`: what is accepted, and that what is refused leaves no trace."""

from pathlib import Path
from typing import Any

import pytest

from tests.builders import START
from tests.desks import KEY, Bench, Served, head_of, make_bench
from tests.waiting import wait_until
from vidmill.domain.job import Job, Lane
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

GENERATE = "/v1/t2v/generate"


def stored(bench: Bench) -> list[Job]:
    return bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=100))


def test_a_clip_is_accepted_with_its_place_in_the_queue(bench: Bench) -> None:
    prompts = ("a red ball", "a blue ball", "a green ball")
    answers = [bench.client.post(GENERATE, json={"prompt": prompt}) for prompt in prompts]

    assert [answer.status_code for answer in answers] == [202, 202, 202]
    docs = [answer.json() for answer in answers]
    assert [doc["queue_position"] for doc in docs] == [0, 1, 2]
    assert docs[0]["status"] == "queued"
    assert docs[0]["eta"] is None
    assert answers[0].headers["Location"] == f"/v1/t2v/status?task_id={docs[0]['task_id']}"
    assert int(answers[0].headers["Retry-After"]) >= 1


def test_the_accepted_job_is_in_the_database_as_asked(bench: Bench) -> None:
    bench.generate(
        prompt="  a cafe\u0301  ",
        negative_prompt="rain",
        resolution="480p",
        duration=3.5,
        frame_rate=30,
        seed=0,
        priority="low",
        client_reference="order 7",
        metadata={"campaign": "spring"},
    )

    (job,) = stored(bench)
    assert job.spec.prompt == "a caf\u00e9"
    assert (job.spec.negative_prompt, job.spec.seed, job.spec.fps) == ("rain", 0, 30)
    assert (job.spec.duration_s, job.lane, job.client_reference) == (3.5, Lane.BATCH, "order 7")
    assert job.request["metadata"] == {"campaign": "spring"}
    assert job.submitted_at == START


def test_a_ticket_is_sent_for_the_accepted_job(bench: Bench) -> None:
    inbox = bench.app.tickets.listen([bench.app.settings.pool], "w1")

    bench.generate()

    assert wait_until(lambda: inbox.take() == [bench.app.settings.pool], timeout_s=5)
    inbox.close()


def test_two_clips_without_a_seed_get_different_ones(bench: Bench) -> None:
    for _ in range(2):
        bench.generate()

    assert len({job.spec.seed for job in stored(bench)}) == 2


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "#/prompt", "required"),
        ({"prompt": None}, "#/prompt", "type"),
        ({"prompt": 7}, "#/prompt", "type"),
        ({"prompt": ["x"]}, "#/prompt", "type"),
        ({"prompt": " \n "}, "#/prompt", "blank"),
        ({"prompt": "a" * 201}, "#/prompt", "max_length"),
        ({"prompt": "a\x00b"}, "#/prompt", "forbidden_character"),
        ({"prompt": "a\x1bb"}, "#/prompt", "forbidden_character"),
        ({"duration": 2.9}, "#/duration", "min"),
        ({"duration": 10.1}, "#/duration", "max"),
        ({"duration": 1e308}, "#/duration", "max"),
        ({"duration": "5"}, "#/duration", "type"),
        ({"duration": True}, "#/duration", "type"),
        ({"resolution": "4K"}, "#/resolution", "not_offered"),
        ({"resolution": "1080p"}, "#/resolution", "not_offered"),
        ({"seed": -1}, "#/seed", "min"),
        ({"seed": 2**31}, "#/seed", "max"),
        ({"seed": 10**400}, "#/seed", "max"),
        ({"seed": 1.5}, "#/seed", "type"),
        ({"seed": True}, "#/seed", "type"),
        ({"seed": "7"}, "#/seed", "type"),
        ({"frame_rate": 23}, "#/frame_rate", "not_offered"),
        ({"enable_physics": 1}, "#/enable_physics", "type"),
        ({"enable_physics": True}, "#/enable_physics", "unsupported"),
        ({"style": "cinematic"}, "#/style", "unsupported"),
        ({"camera": "orbit"}, "#/camera", "unsupported"),
        ({"language": "fr"}, "#/language", "not_offered"),
        ({"metadata": {"a": 1}}, "#/metadata/a", "type"),
        ({"metadata": []}, "#/metadata", "type"),
        ({"webhook_url": "http://example.org/hook"}, "#/webhook_url", "scheme"),
        ({"aspect_ratio": "2:1"}, "#/aspect_ratio", "not_offered"),
        ({"lora": "brand"}, "#/lora", "type"),
        ({"lora": {"name": "brand"}}, "#/lora/name", "not_offered"),
        ({"lora": {"name": 7}}, "#/lora/name", "type"),
        ({"lora": {"strength": 0.5}}, "#/lora/name", "required"),
        ({"promt": "x"}, "#/promt", "unknown_field"),
    ],
)
def test_a_bad_field_is_refused_by_name_and_nothing_is_queued(
    bench: Bench, body: dict[str, Any], pointer: str, code: str
) -> None:
    whole = body if "prompt" in body or not body else {"prompt": "a red ball", **body}

    answer = bench.client.post(GENERATE, json=whole)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert problem["retryable"] is False
    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [(pointer, code)]
    assert stored(bench) == []


def test_all_bad_fields_are_named_at_once_with_their_limits(bench: Bench) -> None:
    body = {"prompt": "a" * 201, "duration": "5", "seed": -1, "sed": 1}

    errors = bench.client.post(GENERATE, json=body).json()["errors"]

    assert {e["pointer"]: e["code"] for e in errors} == {
        "#/prompt": "max_length",
        "#/duration": "type",
        "#/seed": "min",
        "#/sed": "unknown_field",
    }
    assert next(e for e in errors if e["pointer"] == "#/prompt")["limit"] == 200
    assert "'seed'" in next(e for e in errors if e["pointer"] == "#/sed")["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"prompt=x", b'{"prompt": NaN}', b"[" * 60_000, b'{"prompt": "\xff"}', b"\x00"],
)
def test_what_is_not_json_is_malformed(bench: Bench, body: bytes) -> None:
    answer = bench.client.post(GENERATE, content=body)

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


@pytest.mark.parametrize("body", [b"[]", b'"prompt"', b"7", b"null", b"true"])
def test_json_that_is_no_object_is_invalid(bench: Bench, body: bytes) -> None:
    answer = bench.client.post(GENERATE, content=body)

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#")


@pytest.mark.parametrize("body", [b'{"prompt": "\\ud800"}', b'{"prompt": "x", "\\ud800": 1}'])
def test_lone_surrogates_are_refused_in_readable_utf8(bench: Bench, body: bytes) -> None:
    answer = bench.client.post(GENERATE, content=body)

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
)
def test_another_media_type_is_refused(bench: Bench, kind: str) -> None:
    answer = bench.client.post(GENERATE, content=b"{}", headers={"Content-Type": kind})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_by_other_names_is_read(bench: Bench, kind: str) -> None:
    answer = bench.client.post(GENERATE, content=b'{"prompt": "x"}', headers={"Content-Type": kind})

    assert answer.status_code == 202


def test_a_two_megabyte_body_is_refused_unread(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(head_of("POST", GENERATE, f"Content-Length: {2 * 1024 * 1024}"))
        answer = sock.recv(65536)  # not one byte of the body was sent

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_an_endless_chunked_body_is_cut_off(served: Served) -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    with served.connect() as sock:
        sock.sendall(head_of("POST", GENERATE, "Transfer-Encoding: chunked"))
        for _ in range(17):  # 68 KiB, with no end in sight
            sock.sendall(chunk)
        answer = sock.recv(65536)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_the_connection_goes_on_after_a_declared_body_that_was_too_large(served: Served) -> None:
    size = 100_000
    with served.connect() as sock:
        sock.sendall(head_of("POST", GENERATE, f"Content-Length: {size}") + b"x" * size)
        first = sock.recv(65536)
        sock.sendall(head_of("GET", "/livez"))
        second = sock.recv(65536)

    assert (first[9:12], second[9:12]) == (b"413", b"200")


def test_high_priority_is_for_vip_tenants(bench: Bench) -> None:
    assert bench.client.post(GENERATE, json={"prompt": "x", "priority": "high"}).status_code == 202

    answer = bench.other().post(GENERATE, json={"prompt": "x", "priority": "high"})

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert bench.other().get("/v1/t2v/tasks").json()["data"] == []


def test_a_full_queue_is_said_with_a_time_to_come_back(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, cap_queued=2)
    for _ in range(2):
        bench.generate()

    answer = bench.client.post(GENERATE, json={"prompt": "x"})

    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert answer.json()["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0
    assert len(stored(bench)) == 2
    bench.close()


def test_a_database_that_takes_no_writes_is_said_to_be_unavailable(bench: Bench) -> None:
    bench.app.db.close()

    answer = bench.client.post(GENERATE, json={"prompt": "x"})

    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_the_key_is_never_in_an_answer(bench: Bench) -> None:
    answer = bench.client.post(GENERATE, json={"prompt": "x", "nope": 1})

    assert KEY not in answer.text
