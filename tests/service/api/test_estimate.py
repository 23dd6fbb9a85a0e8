"""What a clip would be, said without making it."""

from typing import Any

from tests.desks import Bench, finish
from vidmill.api.dialects.native_models import Estimate
from vidmill.store import accounts, jobs

GENERATE = "/v1/t2v/generate"
ESTIMATE = "/v1/t2v/estimate"


def estimate(bench: Bench, **body: Any) -> dict[str, Any]:
    answer = bench.client.post(ESTIMATE, json={"prompt": "a red ball", **body})
    assert answer.status_code == 200, answer.text
    Estimate.model_validate_json(answer.content, strict=True)
    doc: dict[str, Any] = answer.json()
    return doc


def test_an_estimate_says_what_the_submit_then_says(bench: Bench) -> None:
    finish(bench)
    bench.generate()

    bench.clock.advance(2)  # what is known of the queue is a second old at most
    told = estimate(bench, cache=False, duration=3, resolution="480p", seed=7)
    made = bench.generate(duration=3, resolution="480p", seed=7)

    assert told["price"]["credits"] == made["price"]["credits"]
    assert told["queue_position"] == made["queue_position"] == 1
    assert told["eta_finish"] == made["eta_finish"]
    assert (told["cache_hit"], told["would_be_rejected"]) == (False, None)
    assert (told["request"]["seed"], told["prompt"]) == (7, made["prompt"])


def test_an_estimate_leaves_nothing_behind(bench: Bench) -> None:
    for _ in range(3):
        estimate(bench)

    assert bench.client.get("/v1/t2v/tasks").json()["data"] == []
    assert bench.app.db.read(accounts.all_tenants)[0].queued == 0
    assert not bench.app.db.read(jobs.find_drift)
    lines = bench.app.db.read(lambda conn: conn.exec_driver_sql("SELECT 1 FROM ledger").all())
    assert lines == []


def test_an_estimate_knows_what_the_cache_holds(bench: Bench) -> None:
    finish(bench, cache=True, seed=7)

    told = estimate(bench, seed=7)

    assert (told["cache_hit"], told["price"]["credits"], told["gpu_s"]) == (True, 0, 0.0)


def test_an_estimate_says_why_a_submit_would_be_refused(bench: Bench) -> None:
    bench.app.db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=1))
    bench.generate()

    told = estimate(bench, cache=False)

    assert told["would_be_rejected"]["code"] == "queue_full"
    assert told["price"] is None


def test_an_estimate_of_a_wrong_request_is_refused_as_the_request_is(bench: Bench) -> None:
    body = {"prompt": "", "duration": 99}
    told, refused = (bench.client.post(path, json=body) for path in (ESTIMATE, GENERATE))
    assert told.status_code == refused.status_code == 422
    assert told.json()["errors"] == refused.json()["errors"]
