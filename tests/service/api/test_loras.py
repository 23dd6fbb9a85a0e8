"""Brand styles as they are kept; what may be asked of them is in `test_lora_requests`."""

from typing import Any

from tests.desks import Bench
from tests.loras import generate, share, upload, use_of
from vidmill.api.dialects.native_lora_models import Lora, LoraList
from vidmill.domain.lora import blob_key
from vidmill.domain.ports import LoraFiles

LORAS = "/v1/t2v/loras"


def test_an_uploaded_pair_is_listed_with_all_that_is_known_of_it(
    bench: Bench, files: LoraFiles
) -> None:
    fields: dict[str, Any] = {"trigger_words": ["acme style", "赤い"], "strength": "0.8"}
    answer = upload(bench.client, files, **fields)

    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{LORAS}/acme"
    told = Lora.model_validate_json(answer.content, strict=True)
    use = use_of(files)
    assert (told.high.sha256, told.low.sha256) == (use.high, use.low)
    assert (told.rank, told.layers, told.architecture) == (4, 60, "wan-6x160x448")
    assert (told.trigger_words, told.strength) == (["acme style", "赤い"], 0.8)
    assert (told.enabled, told.shared, told.licence) == (True, False, "own work")
    listed = LoraList.model_validate_json(bench.client.get(LORAS).content, strict=True)
    assert listed.data == [told]
    assert bench.client.get(f"{LORAS}/acme").json() == answer.json()


def test_a_lora_that_tasks_under_way_need_stays_until_they_are_over(
    bench: Bench, files: LoraFiles
) -> None:
    upload(bench.client, files)
    task_id = generate(bench).json()["task_id"]
    refused = bench.client.delete(f"{LORAS}/acme")
    assert (refused.status_code, refused.json()["code"]) == (409, "lora_conflict")

    bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
    assert bench.client.delete(f"{LORAS}/acme").status_code == 204
    assert bench.client.get(f"{LORAS}/acme").status_code == 404
    assert bench.app.blobs.head(blob_key(use_of(files).high)) is None


def test_a_name_is_taken_once_by_each_tenant_and_once_for_all(
    bench: Bench, files: LoraFiles, others: LoraFiles
) -> None:
    share(bench, files, "acme")
    assert upload(bench.client, others).status_code == 201
    refused = upload(bench.client, files)

    assert (refused.status_code, refused.json()["code"]) == (409, "lora_conflict")
    mine, theirs = (client.get(f"{LORAS}/acme").json() for client in (bench.client, bench.other()))
    assert (mine["shared"], theirs["shared"]) == (False, True)
