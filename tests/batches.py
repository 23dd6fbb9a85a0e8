"""Batches over the native API, for tests: made, confirmed and looked at."""

import json
from typing import Any

from httpx2 import Response

from tests.desks import Bench
from vidmill.domain.job import Job
from vidmill.store import jobs

BATCHES = "/v1/t2v/batches"
CSV = {"Content-Type": "text/csv"}
Doc = dict[str, Any]


def create(bench: Bench, *items: Any, **body: Any) -> Doc:
    """Check a batch of *items*, whatever clips there are."""
    defaults = {"duration": 3.0, "resolution": "480p", "cache": False}
    answer = bench.client.post(BATCHES, json={"items": items, "defaults": defaults, **body})
    assert answer.status_code == 201, answer.text
    doc: Doc = answer.json()
    return doc


def confirmed(bench: Bench, *prompts: str, **body: Any) -> str:
    """Queue a batch of clips; return its id."""
    items = [{"custom_id": f"row {n}", "prompt": prompt} for n, prompt in enumerate(prompts, 1)]
    batch_id: str = create(bench, *items, **body)["batch_id"]
    answer = post(bench, batch_id, "confirm")
    assert answer.status_code == 200, answer.text
    return batch_id


def post(bench: Bench, batch_id: str, action: str, **given: Any) -> Response:
    return bench.client.post(f"{BATCHES}/{batch_id}/{action}", **given)


def get(bench: Bench, batch_id: str, part: str = "", **given: Any) -> Doc:
    answer = bench.client.get(f"{BATCHES}/{batch_id}{part}", **given)
    assert answer.status_code == 200, answer.text
    doc: Doc = answer.json()
    return doc


def counts(doc: Doc) -> Doc:
    return {name: number for name, number in doc["counts"].items() if number}


def stored(bench: Bench) -> list[Job]:
    return bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=100, is_oldest_first=True))


def lines(bench: Bench, batch_id: str) -> list[Doc]:
    answer = bench.client.get(f"{BATCHES}/{batch_id}/results")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]
