"""`Idempotency-Key` on every route that makes something: walked, so that none is forgotten."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import pytest

from tests.batches import confirmed, create
from tests.desks import Bench, finish
from tests.service.api.tenancy import CASES, UNKNOWN
from tests.storyboards import fail
from vidmill.api.desk import Desk
from vidmill.api.dialects import DIALECTS
from vidmill.api.repeats import PARAMETER
from vidmill.store.models import metadata

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

Route = tuple[str, str]

KEYLESS: Mapping[Route, str] = {
    ("POST", "/v1/t2v/keys"): "an API key is shown once, and kept as a hash alone",
    ("POST", "/v1/t2v/loras"): "its name is its key: again it is refused, and nothing is made",
    ("POST", "/v1/t2v/webhooks/{webhook_id}/test"): "it is asked for to see it come",
    ("POST", "/v1/webhook_endpoints/{webhook_endpoint_id}/test"): "the same",
    ("POST", "/v1/t2v/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): (
        "tells again what was told, under the same webhook-id"
    ),
    ("POST", "/v1/t2v/webhooks/{webhook_id}/replay"): "the same",
}
"""Routes that count as making something and take no key, with the reason."""


def a_failed_batch(bench: Bench) -> str:
    batch_id = confirmed(bench, "a")
    fail(bench)
    return batch_id


def a_storyboard(bench: Bench) -> str:
    shots = [{"prompt": "a red ball", "duration": 3}, {"prompt": "a blue cube", "duration": 3}]
    board = bench.client.post("/v1/t2v/storyboards", json={"shots": shots}).json()
    return str(board["storyboard_id"])


def a_webhook(bench: Bench) -> str:
    url = "https://93.184.215.14/hook"
    return str(bench.client.post("/v1/t2v/webhooks", json={"url": url}).json()["id"])


MAKERS: Mapping[str, Callable[[Bench], str]] = {
    "/v1/t2v/batches/{batch_id}/confirm": lambda bench: create(bench, {"prompt": "a"})["batch_id"],
    "{batch_id}": a_failed_batch,
    "{storyboard_id}": a_storyboard,
    "{webhook_id}": a_webhook,
    "{webhook_endpoint_id}": a_webhook,
    "{task_id}": finish,
    "{video_id}": finish,
}
"""Makes what a path names; the first that fits."""

KEYED = [
    *(("POST", f"/v1/t2v/{name}") for name in ("generate", "batches", "storyboards", "webhooks")),
    *(("POST", f"/v1/t2v/tasks/{{task_id}}/{name}") for name in ("regenerate", "retry")),
    *(("POST", f"/v1/t2v/batches/{{batch_id}}/{name}") for name in ("confirm", "rerun-failed")),
    ("POST", "/v1/t2v/storyboards/{storyboard_id}/shots/{number}"),
    ("POST", "/v1/t2v/webhooks/{webhook_id}/rotate-secret"),
    ("POST", "/v1/videos"),
    ("POST", "/v1/videos/{video_id}/remix"),
    ("POST", "/v1/webhook_endpoints"),
    ("POST", "/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret"),
    ("POST", "/api/v1/services/aigc/video-generation/video-synthesis"),
]


def test_every_route_that_makes_something_takes_a_key_or_says_why_not(bench: Bench) -> None:
    desk = Desk.of(bench.app)
    making, keyed = set(), set()
    for dialect in DIALECTS:
        for route in dialect.routes(desk):
            if route.is_creating:
                making.add((route.method, route.path))
            if PARAMETER in route.parameters:
                keyed.add((route.method, route.path))
    assert keyed == set(KEYED)
    assert making - keyed == set(KEYLESS)


def path_for(bench: Bench, route: Route) -> str:
    path = route[1].replace("{number}", "1")
    for fragment, make in MAKERS.items():
        if fragment in path and "{" in path:
            thing = make(bench)
            return path.format_map(dict.fromkeys(UNKNOWN, thing))
    return path


def arguments(route: Route) -> dict[str, Any]:
    given = dict(CASES[route].ask)
    if route == ("POST", "/v1/webhook_endpoints"):
        hook = "https://93.184.215.14/hook"
        given["json"] = {"url": hook, "name": "x", "event_types": ["video.completed"]}
    return given


def rows(bench: Bench) -> dict[str, object]:
    """Return how many rows there are of what can be made, and the secrets in use."""
    names = ("jobs", "batches", "storyboards", "storyboard_shots", "webhook_endpoints", "ledger")
    assert set(names) <= set(metadata.tables)

    def count(name: str) -> int:
        query = f"SELECT count(*) FROM {name}"
        return int(bench.app.db.read(lambda conn: conn.exec_driver_sql(query).scalar_one()))

    query = "SELECT secret, old_secret FROM webhook_endpoints ORDER BY id"
    secrets = bench.app.db.read(lambda conn: conn.exec_driver_sql(query).all())
    return {**{name: count(name) for name in names}, "secrets": secrets}


@pytest.mark.parametrize("route", KEYED, ids=lambda route: route[1])
def test_the_same_request_under_the_same_key_makes_one_thing(bench: Bench, route: Route) -> None:
    path, given = path_for(bench, route), arguments(route)
    headers = {**given.pop("headers", {}), "Idempotency-Key": "k"}

    def send() -> httpx2.Response:
        return bench.client.post(path, headers=headers, **given)

    before = rows(bench)
    first = send()
    made = rows(bench)
    again = send()

    assert (first.is_success, "idempotency-replayed" in first.headers) == (True, False), first.text
    assert made != before
    assert rows(bench) == made
    assert again.is_success, again.text
    assert again.headers["idempotency-replayed"] == "true"
    assert named(again) == named(first)
    other = bench.client.post("/v1/t2v/generate", json={"prompt": "else"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def named(answer: httpx2.Response) -> list[object]:
    """Return what an answer says of what was made that no time changes."""
    doc = answer.json()
    names = ("task_id", "batch_id", "storyboard_id", "id", "secret", "signing_secret")
    return [doc.get(name) for name in names] + [doc.get("output", {}).get("task_id")]
