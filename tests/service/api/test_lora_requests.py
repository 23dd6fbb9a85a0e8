"""Brand styles over HTTP: judged at the door, named by tasks, each tenant's own."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.desks import Bench, finish, make_bench
from tests.loras import TINY, generate, lora_tensors, save, share, upload, use_of
from vidmill.domain.lora import blob_key
from vidmill.domain.ports import LoraFiles
from vidmill.profiles import load_profile
from vidmill.services.loras import LORAS_MAX, WantedLora

LORAS = "/v1/t2v/loras"
GENERATE = "/v1/t2v/generate"

pytestmark = pytest.mark.sqlite  # what is tried here is HTTP


def pointers(answer: Any) -> set[str]:
    assert answer.status_code == 422, answer.text
    return {wrong["pointer"] for wrong in answer.json()["errors"]}


def test_a_task_shows_the_lora_it_is_drawn_with(bench: Bench, files: LoraFiles) -> None:
    upload(bench.client, files, trigger_words=["acme style"], strength="0.8")
    task_id = generate(bench).json()["task_id"]
    job = bench.claim()

    use = dataclasses.replace(use_of(files), strength=0.8)
    assert job.spec.lora == use
    assert job.spec.prompt == "a red ball, acme style"
    task = bench.client.get(f"/v1/t2v/tasks/{task_id}").json()
    assert task["request"]["lora"] == {"name": "acme", "strength": 0.8}
    told = bench.client.get(f"/v1/t2v/tasks/{task_id}/explain").json()
    assert told["loras"] == [
        {"name": "acme", "strength": 0.8, "high_sha256": use.high, "low_sha256": use.low}
    ]
    words = {"rule": "lora.acme", "target": "prompt", "text": "acme style"}
    assert told["additions"] == [words]


def test_trigger_words_that_the_prompt_has_are_not_added_again(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files, trigger_words=["Red"])
    generate(bench)
    assert bench.claim().spec.prompt == "a red ball"


def test_capabilities_list_what_is_on_offer_and_its_price_is_that_of_any_clip(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    offered = bench.client.get("/v1/t2v/capabilities").json()["loras"]
    assert offered == [
        {"name": "acme", "strength": 1.0, "trigger_words": [], "licence": "own work"}
    ]
    plain = bench.client.post("/v1/t2v/estimate", json={"prompt": "a red ball"}).json()
    styled = {"prompt": "a red ball", "lora": {"name": "acme"}}
    assert bench.client.post("/v1/t2v/estimate", json=styled).json()["price"] == plain["price"]


def test_an_unknown_name_is_refused_with_those_there_are(bench: Bench, files: LoraFiles) -> None:
    upload(bench.client, files)
    (wrong,) = generate(bench, name="acne").json()["errors"]
    assert wrong["pointer"] == "#/lora/name"
    assert wrong["message"] == "'acne' is not on offer; choose one of: acme"


def test_an_unknown_name_is_told_together_with_fields_of_a_wrong_type(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    asked = {"prompt": "a red ball", "seed": "x", "lora": {"name": "acne", "strength": "1"}}
    told = {"#/seed", "#/lora/strength", "#/lora/name"}
    for path in (GENERATE, "/v1/t2v/estimate"):
        assert pointers(bench.client.post(path, json=asked)) == told
    done = finish(bench, prompt="a red ball")
    changes = {"seed": "x", "lora": {"name": "acne"}}
    again = bench.client.post(f"/v1/t2v/tasks/{done}/regenerate", json=changes)
    assert pointers(again) == {"#/seed", "#/lora/name"}


def test_an_unknown_name_is_told_once_for_a_batch_and_with_the_other_faults_of_a_shot(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    acne = {"lora": {"name": "acne"}}
    rows = {"items": [{"prompt": "a"}, {"prompt": "b"}], "defaults": acne}
    assert pointers(bench.client.post("/v1/t2v/batches", json=rows)) == {"#/defaults/lora/name"}
    shots = {"shots": [{"prompt": "a", **acne}, {"prompt": "", "duration": 3}]}
    told = pointers(bench.client.post("/v1/t2v/storyboards", json=shots))
    assert told == {"#/shots/0/lora/name", "#/shots/1/prompt"}


def test_a_misspelt_field_of_a_lora_is_told_with_the_right_one(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    (wrong,) = generate(bench, stregth=1.0).json()["errors"]
    assert (wrong["pointer"], wrong["code"]) == ("#/lora/stregth", "unknown_field")
    assert "did you mean 'strength'?" in wrong["message"]


def test_a_lora_that_is_no_object_is_answered_with_one(bench: Bench) -> None:
    asked = {"prompt": "a red ball", "lora": "acme"}
    (wrong,) = bench.client.post(GENERATE, json=asked).json()["errors"]
    assert wrong["pointer"] == "#/lora"
    assert wrong["message"] == 'it must be an object: {"name": "acme", "strength": 0.8}'


@pytest.mark.parametrize(("strength", "code"), [(0.0, "min"), (-1.0, "min"), (2.5, "max")])
def test_a_strength_out_of_range_is_refused(
    bench: Bench, files: LoraFiles, strength: float, code: str
) -> None:
    upload(bench.client, files)
    (wrong,) = generate(bench, strength=strength).json()["errors"]
    assert (wrong["pointer"], wrong["code"]) == ("#/lora/strength", code)


def test_the_same_request_with_another_strength_is_another_clip(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    same: dict[str, Any] = {
        "prompt": "a red ball",
        "lora": {"name": "acme", "strength": 0.5},
        "seed": 7,
    }
    finish(bench, **same, cache=True)
    assert bench.client.post(GENERATE, json=same).json()["cached"]
    same["lora"] = {"name": "acme", "strength": 0.6}
    assert not bench.client.post(GENERATE, json=same).json()["cached"]


def test_a_lora_that_is_switched_off_takes_no_new_tasks_and_keeps_the_queued(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    generate(bench)
    told = bench.client.patch(f"{LORAS}/acme", json={"enabled": False})

    assert (told.status_code, told.json()["enabled"]) == (200, False)
    assert generate(bench).json()["errors"][0]["pointer"] == "#/lora/name"
    assert bench.claim().spec.lora
    bench.client.patch(f"{LORAS}/acme", json={"enabled": True})
    assert generate(bench).status_code == 202


def test_a_tenants_own_lora_is_no_other_tenants(bench: Bench, files: LoraFiles) -> None:
    upload(bench.client, files)
    other = bench.other()
    assert other.get(LORAS).json() == {"data": []}
    for answer in (
        other.get(f"{LORAS}/acme"),
        other.patch(f"{LORAS}/acme", json={"enabled": False}),
        other.delete(f"{LORAS}/acme"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "lora_not_found")
    body = {"prompt": "a red ball", "lora": {"name": "acme"}}
    assert other.post(GENERATE, json=body).status_code == 422


def test_a_shared_lora_is_everybodys_to_use_and_only_the_operators_to_change(
    bench: Bench, files: LoraFiles
) -> None:
    share(bench, files)
    for client in (bench.client, bench.other()):
        body = {"prompt": "a red ball", "lora": {"name": "house"}, "cache": False}
        assert client.post(GENERATE, json=body).status_code == 202
        assert client.delete(f"{LORAS}/house").status_code == 404


def test_files_that_another_lora_has_outlive_the_first(bench: Bench, files: LoraFiles) -> None:
    upload(bench.client, files)
    upload(bench.client, files, name="again")
    bench.client.delete(f"{LORAS}/acme")
    assert bench.app.blobs.head(blob_key(use_of(files).high)) is not None


def test_a_task_cannot_be_repeated_when_its_lora_is_gone_or_of_other_files(
    bench: Bench, files: LoraFiles, others: LoraFiles
) -> None:
    upload(bench.client, files)
    task_id = generate(bench).json()["task_id"]
    bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
    retry = f"/v1/t2v/tasks/{task_id}/retry"
    bench.client.delete(f"{LORAS}/acme")
    gone = bench.client.post(retry)
    upload(bench.client, others)

    assert [gone.status_code, bench.client.post(retry).status_code] == [422, 422]
    varied = bench.client.post(f"/v1/t2v/tasks/{task_id}/regenerate", json={})
    assert varied.status_code == 202  # by name: with the files of today
    lora = bench.claim().spec.lora
    assert lora is not None
    assert lora.high == use_of(others).high


def test_rows_of_a_csv_name_one_in_a_column(bench: Bench, files: LoraFiles) -> None:
    upload(bench.client, files)
    csv = b"prompt,lora\na red ball,acme\na blue ball,nobody\na green ball,\n"
    made = bench.client.post(
        "/v1/t2v/batches", content=csv, headers={"Content-Type": "text/csv"}
    ).json()
    rows = bench.client.get(f"/v1/t2v/batches/{made['batch_id']}/rows").json()["data"]
    assert [row["status"] for row in rows] == ["ready", "invalid", "ready"]
    bench.client.post(f"/v1/t2v/batches/{made['batch_id']}/confirm")
    assert {job.spec.lora is None for job in (bench.claim(), bench.claim())} == {True, False}


def test_bad_files_are_refused_with_every_reason_before_anything_is_kept(
    bench: Bench, files: LoraFiles, tmp_path: Path
) -> None:
    small = {**TINY, "ffn_dim": 64}
    wrong = LoraFiles(
        high=save(tmp_path / "high", lora_tensors(1, config=small)), low=tmp_path / "low"
    )
    wrong.low.write_bytes(b"\x80\x04 a pickle")
    answer = upload(bench.client, wrong, name="ACME", licence=" ", strength="3")

    assert answer.status_code == 422
    said = {(e["pointer"], e["code"]) for e in answer.json()["errors"]}
    assert said == {
        ("#/high", "wrong_shape"),
        ("#/low", "malformed"),
        ("#/name", "not_a_name"),
        ("#/licence", "not_a_name"),
        ("#/strength", "max"),
    }
    wrong = LoraFiles(high=wrong.high, low=files.low)
    (shape,) = upload(bench.client, wrong).json()["errors"]
    assert (shape["pointer"], shape["code"]) == ("#/high", "wrong_shape")
    assert "is 4 x 64, and 4 x 448 fits" in shape["message"] or "64 x 4" in shape["message"]
    assert bench.client.get(LORAS).json() == {"data": []}
    assert not (bench.folder / "files" / "loras").exists()
    assert [*(bench.folder / "tmp").iterdir()] == []


@pytest.mark.parametrize(
    ("form", "pointer", "code"),
    [
        ({"data": {"name": "a", "licence": "x"}, "files": {"high": b""}}, "#/low", "required"),
        (
            {"data": {"name": "a", "licence": "x", "low": "text"}, "files": {"high": b""}},
            "#/low",
            "type",
        ),
        (
            {
                "data": {"name": "a", "licence": "x", "nane": "b"},
                "files": {"high": b"", "low": b""},
            },
            "#/nane",
            "unknown_field",
        ),
        (
            {
                "data": {"name": ["a", "b"], "licence": "x"},
                "files": {"high": b"", "low": b""},
            },
            "#/name",
            "repeated",
        ),
        (
            {
                "data": {"name": "a", "licence": "x", "strength": "much"},
                "files": {"high": b"", "low": b""},
            },
            "#/strength",
            "type",
        ),
    ],
)
def test_a_form_that_is_none_is_refused_by_its_part(
    bench: Bench, form: dict[str, Any], pointer: str, code: str
) -> None:
    answer = bench.client.post(LORAS, **form)
    assert answer.status_code == 422, answer.text
    assert (pointer, code) in {(e["pointer"], e["code"]) for e in answer.json()["errors"]}


def test_what_is_no_form_is_refused(bench: Bench) -> None:
    assert bench.client.post(LORAS, json={"name": "acme"}).status_code == 415
    damaged = {"Content-Type": "multipart/form-data; boundary=x"}
    assert bench.client.post(LORAS, content=b"--y", headers=damaged).status_code in {400, 422}


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, files: LoraFiles) -> None:
    bench = make_bench(tmp_path, lora_file_max_bytes=files.high.stat().st_size - 1)
    answer = upload(bench.client, files)
    bench.close()
    assert [e["code"] for e in answer.json()["errors"]] == ["max_length", "max_length"]


def test_one_tenant_has_no_more_than_the_limit(
    bench: Bench, files: LoraFiles, others: LoraFiles
) -> None:
    def add(uow: Any) -> None:
        from vidmill.store import loras

        use, names = use_of(others), [f"style-{number}" for number in range(LORAS_MAX)]
        for name in names:
            values = {"name": name, "tenant_id": 1, "high_sha256": use.high, "high_bytes": 1}
            values |= {"low_sha256": use.low, "low_bytes": 1, "licence": "x", "trigger_words": []}
            values |= {"strength": 1.0, "rank": 4, "targets": 60, "architecture": "wan-6x160x448"}
            loras.create(uow, values)

    bench.app.db.write(add)
    assert upload(bench.client, files).json()["code"] == "lora_conflict"
    assert upload(bench.other(), files).status_code == 201


def test_a_model_that_takes_none_says_so(tmp_path: Path, files: LoraFiles) -> None:
    bench = make_bench(tmp_path)
    plain = dataclasses.replace(load_profile("tiny"), engine="elsewhere")
    app = dataclasses.replace(bench.app, profile=plain)
    from vidmill.wiring import loras_of

    loras = loras_of(app)
    assert loras.offered(1) == {}
    with pytest.raises(Exception, match="takes no LoRAs"):
        loras.add(1, WantedLora(name="a", licence="x"), {"high": files.high, "low": files.low})
    bench.close()
