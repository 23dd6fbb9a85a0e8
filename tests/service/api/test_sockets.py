"""`/v1/t2v/ws`: many tasks over one connection, bounded on both sides."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import ClientConnection, connect

from tests.desks import KEY, OTHER_KEY, Bench, Served, finish, make_bench
from tests.waiting import wait_until
from vidmill.api import sockets
from vidmill.domain.job import JobState, Phase
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

PATH = "/v1/t2v/ws"


@contextmanager
def opened(client: TestClient) -> Iterator[WebSocketTestSession]:
    with client.websocket_connect(PATH) as session:
        yield session


def say(session: Any, **message: object) -> None:
    session.send_text(json.dumps(message))


def hear(session: Any) -> Any:
    return json.loads(session.receive_text())


def hear_until(session: Any, wanted: Callable[[Any], bool]) -> Any:
    for _ in range(50):
        message = hear(session)
        if wanted(message):
            return message
    raise AssertionError("it never came")


def test_a_connection_tells_how_each_task_stands_and_then_what_changes(bench: Bench) -> None:
    ids = [bench.generate()["task_id"] for _ in range(2)]
    with opened(bench.client) as session:
        say(session, action="subscribe", task_ids=ids)
        first = [hear(session) for _ in range(3)]
        job = bench.claim()
        event = {"attempt": 1, "state": JobState.RUNNING, "phase": Phase.DENOISING, "progress": 0.5}
        bench.app.bus.publish(job.public_id, event)
        running = hear_until(session, lambda m: m["data"].get("progress") == 0.5)
        bench.settle(job, jobs.Failed(code="bad_output", message="black"))
        bench.app.bus.publish(job.public_id, {**event, "state": JobState.FAILED})
        over = hear_until(session, lambda m: m["type"] == "t2v.task.failed")

    told = [m for m in first if m["type"] == "t2v.task.queued"]
    assert {m["data"]["task_id"] for m in told} == set(ids)
    assert [m["data"]["task_ids"] for m in first if m["type"] == "subscribed"] == [ids]
    assert running["type"] == "t2v.task.progress"
    assert running["id"] == f"1.{running['seq']}"
    assert over["data"]["task_id"] == job.public_id
    assert over["data"]["error_message"] == "black"


def test_the_first_message_may_bring_the_key(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    with opened(bench.stranger()) as session:
        say(session, action="auth", token=KEY)
        assert hear(session)["type"] == "ready"
        say(session, action="subscribe", task_ids=[task_id])

        assert hear_until(session, lambda m: m["type"] == "t2v.task.queued")


@pytest.mark.parametrize(
    "message", [{"action": "auth", "token": "wrong"}, {"action": "subscribe", "task_ids": []}]
)
def test_without_a_key_the_connection_ends(bench: Bench, message: dict[str, Any]) -> None:
    with opened(bench.stranger()) as session:
        say(session, **message)

        assert hear(session)["data"]["code"] == "unauthorized"
        with pytest.raises(WebSocketDisconnect) as closed:
            hear(session)

    assert closed.value.code == sockets.POLICY


def test_a_wrong_key_in_the_header_is_refused_before_anything_is_opened(bench: Bench) -> None:
    client = TestClient(bench.api, headers={"Authorization": "Bearer wrong"})

    with pytest.raises(WebSocketDenialResponse) as refused, opened(client):
        pass

    assert refused.value.status_code == 401
    assert refused.value.json()["code"] == "unauthorized"


def test_other_tenants_tasks_do_not_exist(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    with opened(bench.other()) as session:
        say(session, action="subscribe", task_ids=[task_id, "t2v_nonsense"])
        messages = [hear(session) for _ in range(3)]

    errors = [m["data"] for m in messages[:2]]
    assert [(e["code"], e["task_id"]) for e in errors] == [
        ("task_not_found", task_id),
        ("task_not_found", "t2v_nonsense"),
    ]
    assert messages[2]["data"]["task_ids"] == []


def test_a_connection_stays_with_its_tenant(bench: Bench) -> None:
    with opened(bench.client) as session:
        say(session, action="auth", token=OTHER_KEY)

        assert hear(session)["data"]["code"] == "invalid_request"
        say(session, action="auth", token=KEY)
        assert hear(session)["type"] == "ready"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "7",
        "null",
        '"auth"',
        "[]",
        "{}",
        '{"action": "dance"}',
        '{"action": ["auth"]}',
        '{"action": {}}',
        '{"action": "auth", "token": 7}',
        '{"action": "subscribe"}',
        '{"action": "subscribe", "task_ids": "t2v_0"}',
        '{"action": "subscribe", "task_ids": [7]}',
        '{"action": "subscribe", "task_ids": [], "after": 7}',
        '{"action": "unsubscribe", "task_ids": {}}',
        '{"action": "auth", "action": "auth"}',
        "[" * 60_000,
        '{"action": "\\ud800"}',
    ],
)
def test_nonsense_is_answered_and_the_connection_goes_on(bench: Bench, text: str) -> None:
    task_id = bench.generate()["task_id"]
    with opened(bench.client) as session:
        session.send_text(text)
        answer = hear(session)
        say(session, action="subscribe", task_ids=[task_id])
        after = hear_until(session, lambda m: m["type"] == "subscribed")

    assert answer["type"] == "error"
    assert answer["data"]["code"] in {"malformed_body", "invalid_request"}
    assert "Traceback" not in str(answer)
    assert after["data"]["task_ids"] == [task_id]


def test_bytes_are_no_message(bench: Bench) -> None:
    with opened(bench.client) as session:
        session.send_bytes(b"\xff\x00")

        assert hear(session)["type"] == "error"


def test_a_message_beyond_the_limit_ends_the_connection(bench: Bench) -> None:
    with opened(bench.client) as session:
        session.send_text('"' + "x" * sockets.MESSAGE_MAX_BYTES + '"')
        with pytest.raises(WebSocketDisconnect) as closed:
            hear(session)

    assert closed.value.code == sockets.TOO_BIG


def test_more_tasks_than_a_connection_follows_are_refused_together(bench: Bench) -> None:
    ids = [f"t2v_{number:032x}" for number in range(sockets.TASKS_MAX + 1)]
    with opened(bench.client) as session:
        say(session, action="subscribe", task_ids=ids)

        assert hear(session)["data"]["errors"][0]["pointer"] == "#/task_ids"


def test_a_reader_goes_on_after_what_he_heard(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    with opened(bench.client) as session:
        say(session, action="subscribe", task_ids=[task_id])
        heard = hear_until(session, lambda m: m["type"] == "t2v.task.queued")["id"]
    with opened(bench.client) as session:
        say(session, action="subscribe", task_ids=[task_id], after={task_id: heard})
        answers = [hear(session)]
        bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
        answers.append(hear(session))

    assert [answer["type"] for answer in answers] == ["subscribed", "t2v.task.cancelled"]


def test_a_finished_task_is_told_once_and_then_followed_no_more(bench: Bench) -> None:
    task_id = finish(bench)
    with opened(bench.client) as session:
        say(session, action="subscribe", task_ids=[task_id])
        told = hear_until(session, lambda m: m["type"] == "t2v.task.completed")
        say(session, action="unsubscribe", task_ids=[task_id])
        gone = hear_until(session, lambda m: m["type"] == "unsubscribed")

    assert told["data"]["result_url"].startswith("http://")
    assert gone["data"]["task_ids"] == []


def test_of_an_unsubscribed_task_nothing_more_is_told(bench: Bench) -> None:
    one, other = (bench.generate()["task_id"] for _ in range(2))
    with opened(bench.client) as session:
        say(session, action="subscribe", task_ids=[one, other])
        hear_until(session, lambda m: m["type"] == "subscribed")
        say(session, action="unsubscribe", task_ids=[one])
        hear_until(session, lambda m: m["type"] == "unsubscribed")
        for task_id in (one, other):
            bench.client.post(f"/v1/t2v/tasks/{task_id}/cancel")
        told = hear_until(session, lambda m: m["type"] == "t2v.task.cancelled")

    assert told["data"]["task_id"] == other


def test_beyond_the_limit_of_watchers_a_connection_is_refused(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, watchers_max=1)
    with (
        opened(bench.client),
        pytest.raises(WebSocketDenialResponse) as refused,
        opened(bench.client),
    ):
        pass

    assert refused.value.status_code == 503
    assert int(refused.value.headers["retry-after"]) > 0
    with opened(bench.client) as session:  # the first one gave its place back
        say(session, action="auth", token=KEY)
        assert hear(session)["type"] == "ready"
    bench.close()


def dial(served: Served, **given: Any) -> ClientConnection:
    opened: ClientConnection = connect(
        f"ws://127.0.0.1:{served.port}{PATH}",
        additional_headers={"Authorization": f"Bearer {KEY}"},
        **given,
    )
    return opened


def test_a_silent_stranger_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "AUTH_S", 0.2)
    with connect(f"ws://127.0.0.1:{served.port}{PATH}") as session:
        session.recv_timeout = 5  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="no API key came"):
            session.recv(timeout=5)


def test_a_reader_who_takes_nothing_is_dropped_and_holds_up_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SLOW_S", 2.0)
    bench = served.bench
    task_id = bench.generate()["task_id"]
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # it does not grow once it is set
    raw.connect(("127.0.0.1", served.port))
    head = (
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Authorization: Bearer {KEY}\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    raw.sendall(head.encode())
    ids = [task_id, *(f"t2v_{number:032x}" for number in range(1500))]
    flood = [
        frame_of(json.dumps({"action": "subscribe", "task_ids": ids[n : n + 500]}))
        for n in (0, 500, 1000)
    ] * 40
    sender = threading.Thread(target=pour, args=(raw, flood), daemon=True)
    sender.start()

    def watchers() -> int:
        page = served.get("/metrics").text
        line = next(x for x in page.splitlines() if x.startswith("vidmill_watchers "))
        return int(float(line.split()[1]))

    assert wait_until(lambda: watchers() > 0, timeout_s=10)
    assert wait_until(lambda: watchers() == 0, timeout_s=20)
    assert read_all(raw)[-60:].count(b"\x03\xf5too slow") == 1  # 1013
    raw.close()
    with dial(served) as session:
        session.send(json.dumps({"action": "subscribe", "task_ids": [task_id]}))
        assert json.loads(session.recv(timeout=5))["type"] in {"subscribed", "t2v.task.queued"}


def frame_of(text: str) -> bytes:
    """Return a masked text frame (RFC 6455 §5.2) whose mask is zero."""
    data = text.encode()
    return b"\x81" + bytes([0x80 | 126]) + len(data).to_bytes(2, "big") + bytes(4) + data


def read_all(raw: socket.socket) -> bytes:
    raw.settimeout(3)
    pieces = []
    while piece := raw.recv(1 << 20):
        pieces.append(piece)
        if b"\x03\xf5too slow" in piece:
            break
    return b"".join(pieces)


def pour(raw: socket.socket, frames: list[bytes]) -> None:
    try:
        for frame in frames:
            raw.sendall(frame)
    except OSError:
        pass  # dropped, as it should be
