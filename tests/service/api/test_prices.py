"""What a task costs and when it is cached: from the submit to the ledger, over the API."""

from typing import Any

import pytest

from tests import ledgers
from tests.builders import make_result
from tests.desks import Bench, finish
from vidmill.domain.job import Lane
from vidmill.store import accounts, jobs, ledger

GENERATE = "/v1/t2v/generate"
CLIP = {"prompt": "a red ball", "resolution": "480p", "duration": 3.0, "seed": 7}


def order(bench: Bench, status: int = 202, **changes: Any) -> Any:
    answer = bench.client.post(GENERATE, json={**CLIP, **changes})
    assert answer.status_code == status, answer.text
    return answer.json()


def look(bench: Bench, doc: Any) -> Any:
    return bench.client.get("/v1/t2v/status", params={"task_id": doc["task_id"]}).json()


def balance(bench: Bench) -> ledgers.Balance:
    return bench.app.db.read(lambda conn: ledgers.balance(conn, 1))


def audited(bench: Bench) -> list[Any]:
    return list(bench.app.db.read(ledger.audit))


def entries(bench: Bench, doc: Any) -> list[tuple[str, int]]:
    def read(conn: Any) -> list[tuple[str, int]]:
        job = jobs.get(conn, doc["task_id"], 1)
        assert job is not None
        return ledgers.entries(conn, job.id)

    return bench.app.db.read(read)


def made(bench: Bench, **changes: Any) -> Any:
    """Have a clip made whose files are really there."""
    return look(bench, {"task_id": finish(bench, **{**CLIP, "cache": True, **changes})})


def test_a_price_is_held_at_submit_and_captured_with_the_clip(bench: Bench) -> None:
    doc = order(bench)
    assert doc["price"] == {"credits": 30, "state": "held"}
    assert (doc["cached"], entries(bench, doc)) == (False, [("hold", 30)])
    assert balance(bench) == ledgers.Balance(held=30, captured=0)

    bench.settle(bench.claim(), jobs.Succeeded(result=make_result()))

    assert look(bench, doc)["price"] == {"credits": 30, "state": "captured"}
    assert entries(bench, doc) == [("hold", 30), ("capture", 30)]
    assert (balance(bench), audited(bench)) == (ledgers.Balance(held=0, captured=30), [])


def test_a_failed_task_costs_nothing(bench: Bench) -> None:
    doc = order(bench)

    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))

    assert look(bench, doc)["price"] == {"credits": 30, "state": "released"}
    assert entries(bench, doc) == [("hold", 30), ("release", 30)]
    assert balance(bench) == ledgers.Balance(held=0, captured=0)


def test_a_cancelled_task_costs_nothing(bench: Bench) -> None:
    doc = order(bench)

    answer = bench.client.post(f"/v1/t2v/tasks/{doc['task_id']}/cancel")

    assert answer.json()["price"] == {"credits": 30, "state": "released"}
    assert (balance(bench), audited(bench)) == (ledgers.Balance(held=0, captured=0), [])


def test_billing_outlives_the_task(bench: Bench) -> None:
    task_id = made(bench)["task_id"]

    assert bench.client.delete(f"/v1/t2v/tasks/{task_id}").status_code == 204

    assert balance(bench) == ledgers.Balance(held=0, captured=30)


def test_an_identical_order_is_answered_at_once_and_for_nothing(bench: Bench) -> None:
    first = made(bench)

    again = order(bench, status=200)

    assert (again["status"], again["cached"], again["progress"]) == ("completed", True, 1.0)
    assert again["price"] == {"credits": 0, "state": "captured"}
    assert again["task_id"] != first["task_id"]
    assert again["result_url"].partition("?")[0] == first["result_url"].partition("?")[0]
    assert entries(bench, again) == [("hold", 0), ("capture", 0)]
    assert balance(bench) == ledgers.Balance(held=0, captured=30)


def test_a_plan_may_ask_for_a_part_of_the_price(bench: Bench) -> None:
    plan = accounts.Plan(name="default", lane=Lane.VIP, cached_price_percent=50)
    bench.app.db.write(lambda uow: accounts.save_plan(uow, plan))
    made(bench)

    again = order(bench, status=200)

    assert again["price"] == {"credits": 15, "state": "captured"}
    assert balance(bench) == ledgers.Balance(held=0, captured=45)


@pytest.mark.parametrize("change", [{"cache": False}, {"seed": 8}, {"seed": None}])
def test_what_is_not_identical_is_made(bench: Bench, change: dict[str, Any]) -> None:
    made(bench)

    assert order(bench, **change)["cached"] is False


def test_another_tenants_clip_answers_nobody_else(bench: Bench) -> None:
    made(bench)

    answer = bench.other().post(GENERATE, json=CLIP)

    assert (answer.status_code, answer.json()["cached"]) == (202, False)


def test_an_old_clip_answers_nobody(bench: Bench) -> None:
    made(bench)
    bench.clock.advance(bench.app.settings.cache_ttl_s + 1)

    assert order(bench)["cached"] is False


def test_a_cached_answer_keeps_the_files_when_the_original_goes(bench: Bench) -> None:
    first = made(bench)
    again = order(bench, status=200)
    content = f"/v1/t2v/tasks/{again['task_id']}/content"

    assert bench.client.delete(f"/v1/t2v/tasks/{first['task_id']}").status_code == 204
    assert bench.client.get(content).content == b"0123456789"

    assert bench.client.delete(f"/v1/t2v/tasks/{again['task_id']}").status_code == 204
    assert [path for path in (bench.folder / "files").rglob("*") if path.is_file()] == []


def test_a_clip_that_was_erased_answers_nobody(bench: Bench) -> None:
    first = made(bench)
    bench.client.delete(f"/v1/t2v/tasks/{first['task_id']}")

    assert order(bench)["cached"] is False


def test_twins_share_a_run_and_each_is_billed(bench: Bench) -> None:
    first, second = order(bench), order(bench)
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["queue_position"] == first["queue_position"] == 0

    job = bench.claim()
    assert look(bench, second)["status"] == "processing"
    bench.settle(job, jobs.Succeeded(result=make_result()))

    docs = [look(bench, doc) for doc in (first, second)]
    assert [doc["status"] for doc in docs] == ["completed", "completed"]
    assert [doc["price"]["state"] for doc in docs] == ["captured", "captured"]
    assert docs[0]["result_url"] == docs[1]["result_url"]
    assert audited(bench) == []


def test_cancelling_the_first_of_twins_does_not_stop_the_second(bench: Bench) -> None:
    first, second = order(bench), order(bench)

    bench.client.post(f"/v1/t2v/tasks/{first['task_id']}/cancel")

    assert (look(bench, first)["status"], look(bench, second)["status"]) == ("cancelled", "queued")
    assert look(bench, second)["cached"] is False
    assert bench.claim().public_id == second["task_id"]


def test_cancelling_the_second_of_twins_does_not_stop_the_first(bench: Bench) -> None:
    first, second = order(bench), order(bench)

    bench.client.post(f"/v1/t2v/tasks/{second['task_id']}/cancel")

    assert look(bench, second)["price"]["state"] == "released"
    assert look(bench, first)["status"] == "queued"


@pytest.mark.parametrize("is_made", [True, False])
def test_an_idempotency_key_gives_the_same_task_cached_or_following(
    bench: Bench, *, is_made: bool
) -> None:
    _ = made(bench) if is_made else order(bench)
    headers = {"Idempotency-Key": "k-1"}

    answers = [bench.client.post(GENERATE, json=CLIP, headers=headers) for _ in range(3)]

    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert {answer.status_code for answer in answers} == {200 if is_made else 202}
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [
        None,
        "true",
        "true",
    ]
    assert all(answer.json()["cached"] for answer in answers)
    assert len(bench.client.get("/v1/t2v/tasks").json()["data"]) == 2


def test_prices_are_those_of_the_settings(bench: Bench) -> None:
    settings = bench.app.settings
    assert order(bench, resolution="720p", duration=4.0)["price"]["credits"] == (
        settings.price_720p_credits_per_s * 4
    )
