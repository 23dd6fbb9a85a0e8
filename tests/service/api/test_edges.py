"""What holds on every route: keys, tenants, request ids, one error shape."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message
from structlog.testing import capture_logs

from tests.desks import KEY, Bench, Served, finish, head_of, make_bench
from tests.service.api.tenancy import CASES, UNKNOWN, ask
from tests.waiting import wait_until

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic x", "Bearer \x7f"])
def test_no_route_answers_without_the_right_key(bench: Bench, authorization: str | None) -> None:
    task_id = finish(bench)
    client = bench.stranger()
    client.headers.update({"Authorization": authorization} if authorization else {})

    for route in CASES:
        answer = ask(client, route, {**UNKNOWN, "task_id": task_id})

        assert answer.status_code == 401, route
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_list_shows_only_the_tenants_own_tasks(bench: Bench) -> None:
    bench.generate()

    assert bench.other().get("/v1/t2v/tasks").json()["data"] == []


def test_another_tenants_cancel_changes_nothing(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]

    bench.other().post(f"/v1/t2v/tasks/{task_id}/cancel")

    doc = bench.client.get("/v1/t2v/status", params={"task_id": task_id}).json()
    assert doc["status"] == "queued"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/t2v/nope", 404, "not_found"),
        ("GET", "/v1/t2v/generate", 405, "method_not_allowed"),
        ("DELETE", "/v1/t2v/tasks", 405, "method_not_allowed"),
        ("POST", "/files/a", 405, "method_not_allowed"),
        ("GET", "/v1/t2v/tasks/" + "x" * 3000, 404, "task_not_found"),
        ("GET", "/v1/t2v/status/", 404, "not_found"),
    ],
)
def test_unknown_routes_and_methods_have_the_one_error_shape(
    bench: Bench, method: str, path: str, status: int, code: str
) -> None:
    answer = bench.client.request(method, path)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:vidmill:error:{code}"
    assert problem["instance"] == f"/requests/{problem['request_id']}"
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert (status == 405) == ("Allow" in answer.headers)


def test_a_callers_request_id_comes_back(bench: Bench) -> None:
    answer = bench.client.get("/livez", headers={"X-Request-ID": "trace-1.a_b:c"})

    assert answer.headers["X-Request-ID"] == "trace-1.a_b:c"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "a\x7f", "<script>"])
def test_an_odd_request_id_is_replaced(bench: Bench, bad: str) -> None:
    answer = bench.client.get("/livez", headers={"X-Request-ID": bad})

    assert answer.headers["X-Request-ID"].startswith("req_")


def test_every_answer_has_a_request_id_of_its_own(bench: Bench) -> None:
    ids = {bench.client.get("/livez").headers["X-Request-ID"] for _ in range(5)}

    assert len(ids) == 5


def test_a_defect_of_ours_is_a_problem_without_details(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"secret {KEY}"

    async def broken(_request: Request) -> Response:
        raise RuntimeError(words)

    bench.api.router.add_route("/broken", broken)

    answer = bench.client.get("/broken")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    shown = capsys.readouterr()
    assert words not in answer.text + shown.out + shown.err
    assert "request_failed" in shown.out + shown.err


@pytest.mark.sqlite
def test_a_database_that_cannot_be_read_is_said_to_be_unavailable(bench: Bench) -> None:
    task_id = bench.generate()["task_id"]
    bench.break_database()

    answer = bench.client.get("/v1/t2v/status", params={"task_id": task_id})

    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")


def test_garbage_on_the_wire_is_400_and_harms_nobody(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        garbled = sock.recv(65536)
    with served.connect() as sock:
        sock.sendall(head_of("GET", "/livez"))
        fine = sock.recv(65536)

    assert (garbled[9:12], fine[9:12]) == (b"400", b"200")


def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_no_mistake_of_ours(
    served: Served,
) -> None:
    def is_over() -> bool:
        counted = served.get("/metrics").text
        return 'route="/v1/t2v/generate"' in counted

    with capture_logs() as said:
        with served.connect() as line:
            line.sendall(head_of("POST", "/v1/t2v/generate", "Content-Length: 100") + b'{"prom')
        assert wait_until(is_over, timeout_s=10)

    assert [entry for entry in said if entry["event"] == "request_failed"] == []


WAIT_S = 0.2
"""How long a body may be waited for here."""


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path, body_wait_s=WAIT_S)
    yield made
    made.close()


def post_slowly(
    bench: Bench, path: str, pieces: Sequence[tuple[float, bytes]], *, key: str = KEY
) -> tuple[int, dict[bytes, bytes], dict[str, str]]:
    """Send *pieces*, each after its pause, and then nothing; return status, headers and answer."""
    left, said = list(pieces), list[Message]()

    async def receive() -> Message:
        if not left:
            await asyncio.sleep(60)
        pause_s, piece = left.pop(0)
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    async def send(message: Message) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {key}".encode())],
    }
    asyncio.run(asyncio.wait_for(bench.api(scope, receive, send), 20))
    body = b"".join(message.get("body", b"") for message in said[1:])
    return said[0]["status"], dict(said[0]["headers"]), json.loads(body)


@pytest.mark.parametrize(
    "pieces",
    [[], [(0.0, b'{"prompt"')], [(WAIT_S / 10, b" ")] * 200],
    ids=["nothing", "a part", "a drip"],
)
@pytest.mark.parametrize("path", ["/v1/t2v/generate", "/v1/t2v/batches", "/v1/videos"])
def test_body_that_does_not_come_is_not_waited_for(
    hasty: Bench, path: str, pieces: list[tuple[float, bytes]]
) -> None:
    status, headers, doc = post_slowly(hasty, path, pieces)

    assert status == 408
    assert headers[b"connection"] == b"close"
    assert "VIDMILL_BODY_WAIT_S" in str(doc)


def test_body_that_comes_steadily_has_a_second_more_for_each_kib(hasty: Bench) -> None:
    body = json.dumps({"prompt": "a red ball"}).encode()
    pieces = [(0.0, b" " * 2048), *[(WAIT_S * 0.8, b" ")] * 3, (0.0, body), (0.0, b"")]

    status, _, doc = post_slowly(hasty, "/v1/t2v/generate", pieces)

    assert (status, doc["status"]) == (202, "queued")
