"""Keys over HTTP: made, shown once, listed, revoked; scopes, expiry, mistyped ones."""

import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.desks import KEY, Bench, Served
from tests.waiting import wait_until
from vidmill.api.auth import REMEMBERED_S
from vidmill.api.sockets import POLICY
from vidmill.domain.api_key import new_key
from vidmill.domain.permission import Scope
from vidmill.services.keys import KEYS_MAX
from vidmill.store.account_tables import api_keys

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

KEYS = "/v1/t2v/keys"


def made(bench: Bench, **changes: Any) -> dict[str, Any]:
    body = {"name": "ci", "scopes": ["read"], **changes}
    answer = bench.client.post(KEYS, json=body)
    assert answer.status_code == 201, answer.text
    doc: dict[str, Any] = answer.json()
    return doc


def client_with(bench: Bench, key: str) -> TestClient:
    return TestClient(bench.api, headers={"Authorization": f"Bearer {key}"})


def listed(bench: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench.client.get(KEYS).json()["data"]
    return found


def names(bench: Bench) -> list[str]:
    return [doc["id"] for doc in listed(bench)]


def test_key_is_shown_once_and_works_for_what_it_was_made_for(bench: Bench) -> None:
    doc = made(bench, scopes=["read"])
    key = doc.pop("api_key")
    assert doc in listed(bench)
    assert key not in bench.client.get(KEYS).text
    assert doc["hint"] == key[:12]
    with_it = client_with(bench, key)
    assert with_it.get("/v1/t2v/capabilities").status_code == 200
    refused = with_it.post("/v1/t2v/generate", json={"prompt": "a red ball"})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert "'submit' (it has: read)" in refused.json()["detail"]


def test_key_says_whose_it_is_and_what_was_made_with_it_is_his(bench: Bench) -> None:
    doc = made(bench, scopes=["submit"], user="ann")
    assert doc["user"] == "ann"
    assert made(bench)["user"] == "default"


def test_key_made_for_a_user_leaves_his_weight(bench: Bench) -> None:
    from vidmill.store import accounts

    bench.app.db.write(lambda uow: accounts.ensure_user(uow, 1, "ann", weight=3.0))
    made(bench, user="ann")
    ann = bench.app.db.read(lambda conn: accounts.find_user(conn, 1, "ann"))
    assert ann is not None
    assert ann.weight == 3.0


def test_key_cannot_give_what_it_lacks(bench: Bench) -> None:
    keeper = client_with(bench, made(bench, scopes=["admin"])["api_key"])
    refused = keeper.post(KEYS, json={"name": "more", "scopes": ["read", "admin"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert "read" in refused.json()["detail"]
    assert keeper.post(KEYS, json={"name": "same", "scopes": ["admin"]}).status_code == 201


def test_tenant_has_so_many_keys_and_no_more(bench: Bench) -> None:
    before = len(listed(bench))
    fill = [make_row(number) for number in range(KEYS_MAX - before)]
    bench.app.db.write(lambda uow: uow.conn.execute(api_keys.insert(), fill))
    wanted = {"name": "one more", "scopes": ["read"]}

    refused = bench.client.post(KEYS, json=wanted)
    others = bench.other().post(KEYS, json=wanted)
    bench.client.delete(f"{KEYS}/{listed(bench)[-1]['id']}")

    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert "1000 API keys" in refused.json()["detail"]
    assert (others.status_code, len(listed(bench))) == (201, KEYS_MAX - 1)
    assert bench.client.post(KEYS, json=wanted).status_code == 201


def test_revoked_key_is_forgotten_within_seconds(bench: Bench) -> None:
    doc = made(bench)
    with_it = client_with(bench, doc["api_key"])
    assert with_it.get("/v1/t2v/capabilities").status_code == 200
    assert bench.client.delete(f"{KEYS}/{doc['id']}").status_code == 204
    bench.clock.advance(REMEMBERED_S + 1)
    assert with_it.get("/v1/t2v/capabilities").status_code == 401
    again = bench.client.delete(f"{KEYS}/{doc['id']}")
    assert (again.status_code, again.json()["code"]) == (404, "key_not_found")


def make_row(number: int) -> dict[str, Any]:
    """Return the row of a key that nobody holds."""
    values = {"tenant_id": 1, "user_id": 1, "name": "old", "created_at": 0.0, "hint": ""}
    return {**values, "key_hash": str(number), "scopes": ["read"]}


def make_old(bench: Bench, doc: dict[str, Any], how: str) -> None:
    """Let the key of *doc* stand for nobody any more, and every process know of it."""
    if how == "revoked":
        assert bench.client.delete(f"{KEYS}/{doc['id']}").status_code == 204
    bench.clock.advance(REMEMBERED_S + 1 if how == "revoked" else 86_400.0)


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("first", ["header", "message"])
def test_open_socket_tells_no_more_once_its_key_is_old(bench: Bench, how: str, first: str) -> None:
    doc = made(bench, expires_in_days=1)
    task_id = bench.generate()["task_id"]
    client = client_with(bench, doc["api_key"]) if first == "header" else bench.stranger()
    with client.websocket_connect("/v1/t2v/ws") as session:
        if first == "message":
            session.send_text(json.dumps({"action": "auth", "token": doc["api_key"]}))
            session.receive_text()
        session.send_text(json.dumps({"action": "subscribe", "task_ids": [task_id]}))
        kinds = {json.loads(session.receive_text())["type"] for _ in range(2)}
        make_old(bench, doc, how)
        bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()

    assert kinds == {"subscribed", "t2v.task.queued"}
    assert closed.value.code == POLICY


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_open_socket_takes_no_orders_once_its_key_is_old(bench: Bench, how: str) -> None:
    doc = made(bench, expires_in_days=1)
    task_id = bench.generate()["task_id"]
    with client_with(bench, doc["api_key"]).websocket_connect("/v1/t2v/ws") as session:
        session.send_text(json.dumps({"action": "subscribe", "task_ids": []}))
        session.receive_text()
        make_old(bench, doc, how)
        session.send_text(json.dumps({"action": "subscribe", "task_ids": [task_id]}))
        refused = json.loads(session.receive_text())
        with pytest.raises(WebSocketDisconnect) as closed:
            session.receive_text()

    assert (refused["type"], refused["data"]["code"]) == ("error", "unauthorized")
    assert closed.value.code == POLICY


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_stream_of_events_ends_once_its_key_is_old(served: Served, how: str) -> None:
    bench = served.bench
    doc = made(bench, expires_in_days=1)
    task_id = bench.generate()["task_id"]
    path, headers = f"/v1/t2v/tasks/{task_id}/events", {"Authorization": f"Bearer {doc['api_key']}"}
    with httpx2.stream("GET", f"{served.url}{path}", headers=headers, timeout=20) as answer:
        pieces = answer.iter_text()
        first = next(pieces)
        make_old(bench, doc, how)
        bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
        rest = "".join(pieces)

    assert "event: t2v.task.queued" in first
    assert "t2v.task.cancelled" not in rest
    assert httpx2.get(f"{served.url}{path}", headers=headers).status_code == 401


def test_open_socket_outlives_a_database_that_is_away(bench: Bench) -> None:
    with bench.client.websocket_connect("/v1/t2v/ws") as session:
        session.send_text(json.dumps({"action": "subscribe", "task_ids": []}))
        session.receive_text()
        bench.clock.advance(REMEMBERED_S + 1)
        bench.break_database()
        session.send_text(json.dumps({"action": "unsubscribe", "task_ids": []}))
        assert json.loads(session.receive_text())["type"] == "unsubscribed"


@pytest.mark.parametrize("name", ["key_999", "key_", "key_1x", "1e9", "key_99999999999", "key_-1"])
def test_what_is_no_key_cannot_be_revoked(bench: Bench, name: str) -> None:
    before = names(bench)
    answer = bench.client.delete(f"{KEYS}/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")
    assert names(bench) == before


def test_expired_key_is_told_so_and_a_guessed_one_is_not(bench: Bench) -> None:
    doc = made(bench, expires_in_days=1)
    with_it = client_with(bench, doc["api_key"])
    assert with_it.get("/v1/t2v/capabilities").status_code == 200
    bench.clock.advance(86_400 + REMEMBERED_S)
    expired = with_it.get("/v1/t2v/capabilities")
    assert (expired.status_code, expired.json()["code"]) == (401, "unauthorized")
    assert "has expired" in expired.json()["detail"]
    guessed = client_with(bench, new_key()).get("/v1/t2v/capabilities")
    assert (guessed.status_code, guessed.json()["code"]) == (401, "unauthorized")
    assert "expired" not in guessed.text


@pytest.mark.sqlite
def test_mistyped_key_is_refused_without_the_database(bench: Bench) -> None:
    statements: list[str] = []

    def trace(connection: Any, *_: Any) -> None:
        connection.set_trace_callback(statements.append)

    event.listen(Engine, "connect", trace)
    try:
        key = new_key()
        wrong = key[:20] + ("A" if key[20] != "A" else "B") + key[21:]
        answers = [
            client_with(bench, text).get("/v1/t2v/capabilities") for text in (wrong, key[:-1])
        ]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert "mistyped or cut off" in answers[0].json()["detail"]
        assert statements == []
    finally:
        event.remove(Engine, "connect", trace)


def test_last_use_is_written_once_a_minute(bench: Bench) -> None:
    doc = made(bench)
    with_it = client_with(bench, doc["api_key"])
    assert doc["last_used_at"] is None

    def used_at() -> str | None:
        found: str | None = next(k for k in listed(bench) if k["id"] == doc["id"])["last_used_at"]
        return found

    with_it.get("/v1/t2v/capabilities")
    assert wait_until(lambda: used_at() is not None, timeout_s=10)  # no request waits for it
    first = used_at()
    bench.clock.advance(REMEMBERED_S + 1)
    with_it.get("/v1/t2v/capabilities")
    assert used_at() == first
    bench.clock.advance(60)
    with_it.get("/v1/t2v/capabilities")
    assert wait_until(lambda: used_at() != first, timeout_s=10)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"#/name", "#/scopes"}),
        ({"name": "", "scopes": []}, {"#/name", "#/scopes"}),
        ({"name": "x" * 101, "scopes": ["all"]}, {"#/name", "#/scopes"}),
        ({"name": "a\x00b", "scopes": ["read"], "user": "\n"}, {"#/name", "#/user"}),
        ({"name": "a", "scopes": ["read"], "expires_in_days": 0}, {"#/expires_in_days"}),
        ({"name": "a", "scopes": ["read"], "expires_in_days": 1e300}, {"#/expires_in_days"}),
        ({"name": "a", "scopes": "read"}, {"#/scopes"}),
        ({"name": "a", "scope": ["read"]}, {"#/scope", "#/scopes"}),
        ([], {"#"}),
    ],
)
def test_wrong_fields_are_all_named_and_nothing_is_made(
    bench: Bench, body: Any, pointers: set[str]
) -> None:
    before = names(bench)
    answer = bench.client.post(KEYS, json=body)
    assert answer.status_code == 422, answer.text
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers
    assert names(bench) == before


def test_key_without_read_opens_no_socket(bench: Bench) -> None:
    key = made(bench, scopes=["submit"])["api_key"]
    with bench.stranger().websocket_connect("/v1/t2v/ws") as socket:
        socket.send_json({"action": "auth", "token": key})
        assert socket.receive_json()["data"]["code"] == "permission_denied"
        socket.send_json({"action": "auth", "token": KEY})
        assert socket.receive_json()["type"] == "ready"


def test_all_scopes_there_are_can_be_given(bench: Bench) -> None:
    assert made(bench, scopes=list(Scope))["scopes"] == list(Scope)
