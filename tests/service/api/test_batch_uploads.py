"""What may be sent as a batch, and what is said of rows that are wrong."""

import json
from pathlib import Path

import pytest

from tests.batches import BATCHES, CSV, Doc, counts, create, post, stored
from tests.desks import Bench, make_bench
from vidmill.domain.job import Lane

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

RED = "红色的球在蓝色地板上弹跳"


def test_each_wrong_row_is_told_by_line_and_field(bench: Bench) -> None:
    doc = create(
        bench,
        {"custom_id": "a", "prompt": "red"},
        {"custom_id": "a", "prompt": "blue"},
        {"promt": "green", "duration": 99.0},
        ["not", "an", "object"],
        {"custom_id": 7, "prompt": "x" * 201},
    )

    assert counts(doc) == {"total": 5, "ready": 1, "invalid": 4}
    found = {
        row["line"]: {(problem["field"], problem["code"]) for problem in row["problems"]}
        for row in doc["problems"]
    }
    assert found == {
        2: {("custom_id", "duplicate")},
        3: {("promt", "unknown_field"), ("prompt", "required"), ("duration", "max")},
        4: {("", "type")},
        5: {("custom_id", "type"), ("prompt", "max_length")},
    }


def test_an_upload_is_read_as_what_it_is(bench: Bench) -> None:
    table = f"custom_id,prompt,duration\nx,{RED},3\ny,,3\n".encode("gb18030")

    raw = bench.client.post(f"{BATCHES}?name=raw&priority=normal", content=table, headers=CSV)
    form = bench.client.post(
        BATCHES,
        files={"file": ("rows.csv", table, "application/octet-stream")},
        data={"name": "form", "priority": "normal"},
    )
    ndjson = bench.client.post(
        BATCHES,
        content=b'{"prompt":"a"}\n{"prompt":""}\n',
        headers={"Content-Type": "application/x-ndjson"},
    )

    for answer, name in ((raw, "raw"), (form, "form")):
        doc = answer.json()
        assert (answer.status_code, doc["name"]) == (201, name)
        assert doc["source"] == {
            "format": "csv",
            "encoding": "gb18030",
            "is_guess": True,
            "delimiter": ",",
        }
        assert doc["samples"][0]["prompt"] == RED
        assert [row["line"] for row in doc["problems"]] == [3]
    assert counts(ndjson.json()) == {"total": 2, "ready": 1, "invalid": 1}
    post(bench, form.json()["batch_id"], "confirm")
    assert [job.lane for job in stored(bench)] == [Lane.STANDARD]


@pytest.mark.parametrize(
    ("given", "status", "pointer"),
    [
        ({"json": {"items": []}}, 422, "#/line/1"),
        ({"json": {"items": [{}], "defaults": {"durration": 3}}}, 422, "#/defaults/durration"),
        ({"json": {"items": [{}], "defaults": {"duration": 99.0}}}, 422, "#/defaults/duration"),
        ({"json": {"items": [{}], "priority": "urgent"}}, 422, "#/priority"),
        ({"json": {"items": [{}], "nam": "x"}}, 422, "#/nam"),
        ({"json": {"items": [{}], "name": " "}}, 422, "#/name"),
        ({"json": {"items": [{}], "webhook_url": "ftp://x"}}, 422, "#/webhook_url"),
        ({"json": [1]}, 422, "#"),
        ({"content": b"prompt,x\n1,2\n", "headers": CSV}, 422, "#/line/1/x"),
        ({"content": b"prompt\nx\n", "headers": CSV, "params": {"p": "1"}}, 422, "#/query/p"),
        ({"files": {"file": ("a.pdf", b"x", "application/pdf")}}, 422, "#/file"),
        ({"files": {"other": ("a.csv", b"x", "text/csv")}}, 422, "#/file"),
        (
            {"files": {"file": ("a.csv", b"prompt\nx\n", "text/csv")}, "data": {"x": "1"}},
            422,
            "#/x",
        ),
        (
            {"content": b"prompt\nx\n", "headers": CSV, "params": {"confirm": "1"}},
            422,
            "#/query/confirm",
        ),
        (
            {"content": b"prompt\nx\n", "headers": CSV, "params": {"defaults": "{"}},
            422,
            "#/query/defaults",
        ),
        (
            {"content": b"prompt\nx\n", "headers": CSV, "params": {"defaults": "[]"}},
            422,
            "#/query/defaults",
        ),
        (
            {"content": b"prompt\n\xff\n", "headers": {"Content-Type": "text/csv; charset=UTF-8"}},
            422,
            "#/line/2",
        ),
        (
            {
                "files": {"file": ("a.csv", b"prompt\nx\n", "text/csv")},
                "data": {"name": ["a", "b"]},
            },
            422,
            "#/name",
        ),
        (
            {"files": {"file": ("a.csv", b"prompt\nx\n", "text/csv")}, "data": {"confirm": "1"}},
            422,
            "#/confirm",
        ),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, None),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, None),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400,
            None,
        ),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, None),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_kept(
    bench: Bench, given: Doc, status: int, pointer: str | None
) -> None:
    answer = bench.client.post(BATCHES, **given)

    assert answer.status_code == status, answer.text
    if pointer:
        assert pointer in [problem["pointer"] for problem in answer.json()["errors"]]
    assert bench.client.get(BATCHES).json()["data"] == []


@pytest.mark.parametrize(
    ("custom_id", "code"),
    [(" ", "blank"), ("x" * 201, "max_length"), ("a\x00b", "forbidden_character")],
)
def test_a_name_of_a_row_that_is_none_is_told(bench: Bench, custom_id: str, code: str) -> None:
    doc = create(bench, {"custom_id": custom_id, "prompt": "red"})

    assert [problem["code"] for problem in doc["problems"][0]["problems"]] == [code]


def test_what_no_database_can_hold_is_told_all_the_same(bench: Bench) -> None:
    rows = [
        {"prompt": "a\x00b"},
        {"prompt": "x", "\ud800\x00": 1},
        {"prompt": "x", "metadata": {"\ud800\x00": "y"}},
        {"prompt": "x", "style": "\x00\ud800"},
    ]
    body = json.dumps({"items": rows})

    answer = bench.client.post(BATCHES, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 201, answer.text
    assert counts(answer.json()) == {"total": 4, "invalid": 4}


def test_of_a_row_that_cannot_be_taken_apart_nothing_else_is_said(bench: Bench) -> None:
    table = b"custom_id,prompt\na,red, round\nb,blue\n"

    doc = bench.client.post(BATCHES, content=table, headers=CSV).json()

    (wrong,) = doc["problems"]
    assert (wrong["line"], [problem["code"] for problem in wrong["problems"]]) == (2, ["width"])
    assert counts(doc) == {"total": 2, "ready": 1, "invalid": 1}


def test_defaults_and_the_kind_of_a_file_come_beside_it(bench: Bench) -> None:
    answer = bench.client.post(
        f'{BATCHES}?defaults={{"duration":3.0,"resolution":"480p"}}',
        files={"file": ("rows", b"prompt\nred\n", "text/csv")},
        data={"confirm": "true"},
    )

    assert answer.status_code == 202, answer.text
    assert [job.spec.duration_s for job in stored(bench)] == [3.0]


def test_more_rows_than_may_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    bench = make_bench(tmp_path / "small", batch_rows_max=2)

    answer = bench.client.post(BATCHES, json={"items": [{"prompt": "a"}] * 3})

    assert (answer.status_code, answer.json()["errors"][0]["limit"]) == (422, 2)
    bench.close()


def test_a_large_upload_is_let_in_where_other_bodies_are_not(bench: Bench) -> None:
    limit = bench.app.settings.body_max_bytes
    body = b"prompt,note\n" + b"x," + b"y" * 100_000 + b"\n"

    assert len(body) > limit
    assert bench.client.post(BATCHES, content=body, headers=CSV).status_code == 201
    assert bench.client.post("/v1/t2v/generate", content=body).status_code == 413


def test_who_may_not_ask_for_high_priority_is_told_row_by_row(bench: Bench) -> None:
    body = {"items": [{"prompt": "a", "priority": "high"}, {"prompt": "b"}]}

    doc = bench.other().post(BATCHES, json=body).json()

    assert counts(doc) == {"total": 2, "ready": 1, "invalid": 1}
    assert doc["problems"][0]["problems"][0]["code"] == "permission_denied"
