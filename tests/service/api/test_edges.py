"""What holds on every route: keys, tenants, request ids, one error shape."""

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.desks import KEY, Bench, Served, finish, head_of

GUARDED = [
    ("POST", "/v1/t2v/generate"),
    ("GET", "/v1/t2v/status?task_id={id}"),
    ("GET", "/v1/t2v/result/{id}"),
    ("GET", "/v1/t2v/tasks"),
    ("GET", "/v1/t2v/tasks/{id}"),
    ("POST", "/v1/t2v/tasks/{id}/cancel"),
    ("POST", "/v1/t2v/tasks/{id}/retry"),
    ("DELETE", "/v1/t2v/tasks/{id}"),
    ("GET", "/v1/t2v/tasks/{id}/events"),
    ("GET", "/v1/t2v/tasks/{id}/content"),
    ("HEAD", "/v1/t2v/tasks/{id}/content"),
    ("POST", "/v1/t2v/tasks/{id}/run-next"),
    ("GET", "/v1/t2v/capabilities"),
]
OF_ONE_TASK = [route for route in GUARDED if "{id}" in route[1]]


def test_every_guarded_route_is_in_the_table_above(bench: Bench) -> None:
    routes = [r for r in bench.api.routes if isinstance(r, Route) and r.path.startswith("/v1")]
    found = {
        (method, r.path.replace("{task_id}", "{id}")) for r in routes for method in r.methods or ()
    }

    assert found == {(method, path.partition("?")[0]) for method, path in GUARDED}


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic x", "Bearer \x7f"])
def test_no_route_answers_without_the_right_key(bench: Bench, authorization: str | None) -> None:
    task_id = finish(bench)
    headers = {"Authorization": authorization} if authorization else {}

    for method, path in GUARDED:
        answer = bench.stranger().request(method, path.format(id=task_id), headers=headers)

        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), OF_ONE_TASK)
def test_no_route_shows_the_task_of_another_tenant(bench: Bench, method: str, path: str) -> None:
    mine = finish(bench)
    not_there = "t2v_" + "0" * 32

    theirs = bench.other().request(method, path.format(id=mine))
    nobodys = bench.other().request(method, path.format(id=not_there))

    assert (theirs.status_code, nobodys.status_code) == (404, 404)
    assert theirs.text.replace(mine, "").replace(theirs.headers["X-Request-ID"], "") == (
        nobodys.text.replace(not_there, "").replace(nobodys.headers["X-Request-ID"], "")
    )


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
