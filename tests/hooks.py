"""Webhook endpoints over HTTP, and deliveries made on the spot."""

import asyncio
import json
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests.desks import Bench, make_bench
from tests.receivers import Receiver
from vidmill.stack.front import new_deliverer

HOOKS = "/v1/t2v/webhooks"
URL = "https://93.184.216.34/hook"


def make_hook_bench(folder: Path, **settings: Any) -> Bench:
    """Return an API whose operator lets webhooks reach this machine; the caller closes it."""
    return make_bench(folder, webhook_http=True, webhook_allow=["127.0.0.1"], **settings)


def create(client: TestClient, url: str = URL, **body: Any) -> dict[str, Any]:
    answer = client.post(HOOKS, json={"url": url, **body})
    assert answer.status_code == 201, answer.text
    doc: dict[str, Any] = answer.json()
    return doc


def deliver(bench: Bench) -> None:
    """Make attempts until nothing is due."""
    deliverer = new_deliverer(bench.app, "http://here.test")

    async def work() -> None:
        while await deliverer.turn():
            await deliverer.finish()

    asyncio.run(work())


def bodies(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in receiver.calls]


def problem(answer: Any) -> tuple[int, str, list[str]]:
    doc = answer.json()
    return answer.status_code, doc["code"], [wrong["pointer"] for wrong in doc.get("errors", [])]
