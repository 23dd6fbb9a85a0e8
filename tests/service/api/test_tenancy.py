"""On every route: no key, no entry; no scope, no entry; and nothing of another tenant's.

One can neither see another's things, nor change them, nor tell by answer or by work that they are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from starlette.testclient import TestClient

from tests.desks import Bench, make_bench
from tests.service.api.tenancy import CASES, OPEN, SECRET, UNKNOWN, Ids, ask, names_of, own_things
from vidmill.domain.permission import Scope

Route = tuple[str, str]
NAMING = [route for route in CASES if names_of(route)]
LISTING = [route for route in CASES if not names_of(route)]


def label(route: Route) -> str:
    return " ".join(route)


def test_every_route_says_what_it_asks_for(bench: Bench) -> None:
    found = {
        (method, str(getattr(route, "path", "")))
        for route in bench.api.routes
        for method in getattr(route, "methods", None) or ()
    }
    assert dict.fromkeys(found - set(CASES) - OPEN, "an entry in tenancy.CASES") == {}
    assert set(CASES) - found == set()


@pytest.fixture
def keys(bench: Bench) -> dict[Scope, TestClient]:
    """Clients whose keys have one scope each."""
    found = {}
    for scope in Scope:
        body = {"name": "one scope", "scopes": [scope]}
        key = bench.client.post("/v1/t2v/keys", json=body).json()["api_key"]
        found[scope] = TestClient(bench.api, headers={"Authorization": f"Bearer {key}"})
    return found


@pytest.mark.sqlite  # no route decides it by the database
def test_no_route_works_without_its_scope(bench: Bench, keys: dict[Scope, TestClient]) -> None:
    for route, case in CASES.items():
        assert (label(route), ask(bench.stranger(), route, UNKNOWN).status_code) == (
            label(route),
            401,
        )
        for scope, client in keys.items():
            answer = ask(client, route, UNKNOWN)
            is_refused = answer.status_code == 403
            assert (label(route), scope, is_refused) == (label(route), scope, scope != case.scope)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that SQLite runs from now on, on connections opened from now on."""
    seen: list[str] = []

    def trace(connection: Any, *_: Any) -> None:
        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(seen.append)

    event.listen(Engine, "connect", trace)
    yield seen
    event.remove(Engine, "connect", trace)


@pytest.fixture
def watched(tmp_path: Path, statements: list[str]) -> Iterator[Bench]:
    made = make_bench(tmp_path)
    yield made
    made.close()


def anonymous(text: str, ids: Ids) -> str:
    for value in ids.values():
        text = text.replace(value, "<id>")
    for value in ids.values():  # without its prefix, as one dialect shows it
        if len(value) > len("key_123"):
            text = text.replace(value.rpartition("_")[2], "<id>")
    return text


def told(answer: Any, ids: Ids) -> tuple[int, list[tuple[str, str]], str]:
    """Return all that an answer says but which id was asked for."""
    headers = sorted((k, v) for k, v in answer.headers.items() if k != "content-length")
    return answer.status_code, headers, anonymous(answer.text, ids)


@pytest.mark.sqlite  # whose statements are watched
@pytest.mark.parametrize("route", NAMING, ids=label)
def test_what_is_anothers_is_as_if_it_were_not(
    watched: Bench, statements: list[str], route: Route
) -> None:
    theirs = own_things(watched)
    before = seen_by_owner(watched, theirs)
    client = watched.other()
    for other in ("warm", "up"):  # a lookup that is remembered, a connection that is opened
        ask(client, route, {**UNKNOWN, "task_id": f"t2v_{other:x<32}"})
    watched.app.db.write(lambda _: None)  # behind what nobody waits for

    def work(ids: Ids) -> tuple[Any, list[str]]:
        statements.clear()
        answer = ask(client, route, ids)
        return told(answer, ids), [anonymous(text, ids) for text in statements]

    unknown, anothers = work(UNKNOWN), work(theirs)

    assert anothers[0] == unknown[0]
    assert len(anothers[1]) == len(unknown[1])
    assert anothers[0][0] == CASES[route].denied
    assert seen_by_owner(watched, theirs) == before
    if not CASES[route].is_alike:  # the owner finds it: the test means something
        assert told(ask(watched.client, route, theirs), theirs) != anothers[0]


def seen_by_owner(bench: Bench, ids: Ids) -> list[str]:
    paths = (
        f"/v1/t2v/tasks/{ids['task_id']}",
        f"/v1/t2v/batches/{ids['batch_id']}",
        f"/v1/t2v/storyboards/{ids['storyboard_id']}",
        f"/v1/t2v/webhooks/{ids['webhook_id']}",
        f"/v1/t2v/webhooks/{ids['webhook_id']}/deliveries",
    )
    return [bench.client.get(path).text for path in paths]


def test_no_list_and_no_new_thing_shows_anothers(bench: Bench) -> None:
    theirs = own_things(bench)
    for route in LISTING:
        text = ask(bench.other(), route, UNKNOWN).text
        for secret in (SECRET, *theirs.values()):
            assert secret not in text, label(route)


def test_another_tenants_cursor_leads_nowhere(bench: Bench) -> None:
    for _ in range(2):
        bench.generate()
    cursor = bench.client.get("/v1/t2v/tasks?limit=1").json()["next_cursor"]
    answer = bench.other().get("/v1/t2v/tasks", params={"limit": 1, "cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_tenants_use_one_idempotency_key_apart(bench: Bench) -> None:
    body, headers = {"prompt": "a red ball"}, {"Idempotency-Key": "same"}
    answers = [
        client.post("/v1/t2v/generate", json=body, headers=headers)
        for client in (bench.client, bench.other())
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["task_id"] != answers[1].json()["task_id"]


def test_tenants_share_no_cache(bench: Bench) -> None:
    own_things(bench)
    answer = bench.other().post("/v1/t2v/generate", json={"prompt": SECRET, "duration": 5.0})
    assert answer.status_code == 202
