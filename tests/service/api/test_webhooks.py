"""Webhook endpoints over HTTP: making, changing and rotating them."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.builders import START
from tests.desks import Bench
from tests.hooks import HOOKS, URL, create, make_hook_bench, problem
from vidmill.domain.webhook import EventType
from vidmill.store import deliveries, webhooks
from vidmill.store.deliveries import LOG_AT_ONCE


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_hook_bench(tmp_path)
    yield made
    made.close()


def test_secret_is_shown_when_made_and_never_again(bench: Bench) -> None:
    made = create(bench.client)
    path = f"{HOOKS}/{made['id']}"
    assert made["secret"].startswith("whsec_")
    assert bench.client.get(path).json() == {k: v for k, v in made.items() if k != "secret"}
    assert "whsec_" not in bench.client.get(HOOKS).text


def test_endpoint_wants_the_native_types_unless_told(bench: Bench) -> None:
    assert create(bench.client)["events"] == [
        "t2v.task.completed",
        "t2v.task.failed",
        "t2v.task.cancelled",
        "t2v.batch.completed",
        "t2v.storyboard.completed",
        "t2v.storyboard.failed",
    ]
    assert create(bench.client, events=["video.failed"])["events"] == ["video.failed"]


def test_list_shows_the_newest_first_and_the_default_last(bench: Bench) -> None:
    first, second = create(bench.client)["id"], create(bench.client)["id"]
    listed = [doc["id"] for doc in bench.client.get(HOOKS).json()["data"]]
    assert listed == [second, first, "default"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/url"]),
        ({"url": "ftp://example.com/"}, ["#/url"]),
        ({"url": "https://10.0.0.1/"}, ["#/url"]),
        ({"url": "http://169.254.169.254/latest/meta-data"}, ["#/url"]),
        ({"url": "https://nobody.invalid/"}, ["#/url"]),
        ({"url": URL, "events": []}, ["#/events"]),
        ({"url": URL, "events": ["t2v.task.eaten"]}, ["#/events/0"]),
        ({"url": URL, "events": ["webhook.test"]}, ["#/events"]),
        ({"url": URL, "events": ["video.failed", "video.failed"]}, ["#/events"]),
        ({"url": URL, "description": "x" * 201}, ["#/description"]),
        ({"url": URL, "description": "a\x00b"}, ["#/description"]),
        ({"url": URL, "colour": "red"}, ["#/colour"]),
    ],
)
def test_wrong_endpoint_is_refused_by_field(
    bench: Bench, body: dict[str, Any], pointers: list[str]
) -> None:
    assert problem(bench.client.post(HOOKS, json=body)) == (422, "invalid_request", pointers)


def test_refusal_of_an_address_inside_names_the_remedy(bench: Bench) -> None:
    answer = bench.client.post(HOOKS, json={"url": "https://10.0.0.1/"})
    assert "VIDMILL_WEBHOOK_ALLOW" in answer.json()["detail"]


def test_endpoint_can_be_changed_in_part(bench: Bench) -> None:
    made = create(bench.client, description="before")
    changes = {"description": "after", "events": ["video.completed"], "enabled": False}
    changed = bench.client.patch(f"{HOOKS}/{made['id']}", json=changes).json()
    assert {name: changed[name] for name in changes} == changes
    assert changed["url"] == made["url"]


def test_new_url_is_checked_too(bench: Bench) -> None:
    made = create(bench.client)
    answer = bench.client.patch(f"{HOOKS}/{made['id']}", json={"url": "https://10.0.0.1/"})
    assert problem(answer) == (422, "invalid_request", ["#/url"])


def test_creating_twice_under_one_key_makes_one_and_shows_its_secret_again(bench: Bench) -> None:
    headers, body = {"Idempotency-Key": "k"}, {"url": URL}
    first = bench.client.post(HOOKS, json=body, headers=headers)
    again = bench.client.post(HOOKS, json=body, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = bench.client.post(HOOKS, json={**body, "description": "x"}, headers=headers)
    assert problem(other)[:2] == (422, "idempotency_key_reused")


def test_deleted_endpoint_is_gone(bench: Bench) -> None:
    path = f"{HOOKS}/{create(bench.client)['id']}"
    assert bench.client.delete(path).status_code == 204
    assert problem(bench.client.get(path))[:2] == (404, "webhook_not_found")


def test_deleted_endpoint_leaves_nothing_of_a_long_log(bench: Bench) -> None:
    made, db = create(bench.client), bench.app.db
    endpoint = db.read(lambda conn: webhooks.find(conn, 1, made["id"]))
    assert endpoint is not None
    events = [(EventType.TASK_COMPLETED, f"t2v_{n}", 0.0) for n in range(LOG_AT_ONCE + 1)]
    db.write(lambda uow: deliveries.add(uow, endpoint, events))

    assert bench.client.delete(f"{HOOKS}/{made['id']}").status_code == 204

    assert db.read(lambda conn: deliveries.page(conn, endpoint.id, limit=9)) == []


def test_tenant_may_have_fifty_endpoints(bench: Bench) -> None:
    for _ in range(50):
        create(bench.client)
    answer = bench.client.post(HOOKS, json={"url": URL})
    assert problem(answer)[:2] == (429, "quota_exceeded")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate-secret"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", "/replay"),
    ],
)
def test_endpoint_of_another_tenant_is_as_unknown_as_none(
    bench: Bench, method: str, path: str
) -> None:
    made = create(bench.client)["id"]
    body = {"since": str(START)} if path == "/replay" else {}
    foreign = bench.other().request(method, f"{HOOKS}/{made}{path}", json=body)
    nobodys = bench.other().request(method, f"{HOOKS}/{'we_' + '0' * 24}{path}", json=body)
    for answer in (foreign, nobodys):
        assert problem(answer)[:2] == (404, "webhook_not_found")


@pytest.mark.parametrize("name", ["%00", "we_%F0%9F%98%80", "'; DROP TABLE jobs", "x" * 500])
def test_strange_names_are_names_of_nothing(bench: Bench, name: str) -> None:
    assert problem(bench.client.get(f"{HOOKS}/{name}"))[:2] == (404, "webhook_not_found")
    answer = bench.client.get(f"{HOOKS}/default/deliveries/{name}")
    assert problem(answer)[:2] == (404, "delivery_not_found")


def test_default_shows_its_secret_and_can_only_be_rotated(bench: Bench) -> None:
    before = bench.client.get(f"{HOOKS}/default").json()
    after = bench.client.post(f"{HOOKS}/default/rotate-secret").json()
    assert before["secret"] != after["secret"]
    assert bench.client.get(f"{HOOKS}/default").json()["secret"] == after["secret"]
    for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/test")):
        answer = bench.client.request(method, f"{HOOKS}/default{path}", json={})
        assert problem(answer)[:2] == (400, "unsupported_operation")


def test_rotated_secret_says_how_long_the_old_one_lives(bench: Bench) -> None:
    made = create(bench.client)
    rotated = bench.client.post(f"{HOOKS}/{made['id']}/rotate-secret").json()
    assert rotated["secret"] != made["secret"]
    until = datetime.fromisoformat(rotated["old_secret_until"]).timestamp()
    assert until == START + 86_400
