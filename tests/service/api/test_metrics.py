"""`/metrics`: who may read it, and that it says what is true."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.desks import Bench, make_bench
from tests.storyboards import FakeJoin, joiner, make, ready
from vidmill.api.desk import Desk
from vidmill.api.metrics import CATALOGUE, may_read
from vidmill.reference import metrics_page
from vidmill.store import breakers
from vidmill.store.breakers import BreakerPolicy
from vidmill.store.session import UnitOfWork

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path, metrics_token="let me in")
    yield made
    made.close()


def scrape(bench: Bench) -> dict[tuple[str, frozenset[str]], float]:
    """Return each sample by its name and the values of its labels."""
    client = TestClient(bench.api, headers={"Authorization": "Bearer let me in"})
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: dict[tuple[str, frozenset[str]], float], name: str, *labels: str) -> float:
    return found[name, frozenset(labels)]


def test_queues_are_counted_from_the_database(open_bench: Bench) -> None:
    bench = open_bench
    for _ in range(3):
        bench.generate()
    bench.generate(priority="low")
    bench.clock.advance(7)

    found = scrape(bench)

    assert of(found, "vidmill_queue_depth", "default", "standard") == 3
    assert of(found, "vidmill_queue_depth", "default", "batch") == 1
    assert of(found, "vidmill_queue_oldest_seconds", "default", "standard") == pytest.approx(
        7, abs=1
    )
    assert of(found, "vidmill_queue_gpu_seconds", "default") > 0
    assert of(found, "vidmill_database_up") == 1


def test_requests_and_submits_are_counted_by_route(open_bench: Bench) -> None:
    bench = open_bench
    bench.generate(cache=True)
    doc = bench.generate(cache=True)
    bench.client.get(f"/v1/t2v/tasks/{doc['task_id']}")
    bench.client.get("/no/such/page")

    found = scrape(bench)

    requests = "vidmill_http_requests_total"
    assert of(found, requests, "POST", "/v1/t2v/generate", "202") == 2
    assert of(found, requests, "GET", "/v1/t2v/tasks/{task_id}", "200") == 1
    assert of(found, requests, "GET", "other", "404") == 1
    assert of(found, "vidmill_tasks_submitted_total", "standard", "queued") == 1
    assert of(found, "vidmill_tasks_submitted_total", "standard", "following") == 1
    assert of(found, "vidmill_http_request_seconds_count", "/v1/t2v/generate") == 2
    assert of(found, "vidmill_http_requests_in_flight") == 1  # this very scrape


def test_storyboards_are_counted_by_state_and_joins_by_what_came_of_them(open_bench: Bench) -> None:
    bench, boards = open_bench, Desk.of(open_bench.app).storyboards
    ready(bench, boards)
    make(boards)
    bench.clock.advance(7)

    found = scrape(bench)
    assert of(found, "vidmill_storyboards", "joining") == 1
    assert of(found, "vidmill_storyboards", "rendering") == 1
    assert of(found, "vidmill_storyboards", "cancelling") == 0
    assert of(found, "vidmill_storyboard_oldest_seconds") == pytest.approx(7, abs=1)
    assert of(found, "vidmill_storyboard_joins_total", "joined") == 0

    joiner(bench, FakeJoin(bench)).step()

    found = scrape(bench)
    assert of(found, "vidmill_storyboards", "joining") == 0
    assert of(found, "vidmill_storyboard_oldest_seconds") == 0
    assert of(found, "vidmill_storyboard_joins_total", "joined") == 1
    assert of(found, "vidmill_storyboard_join_seconds_total", "joined") > 0


def test_an_open_breaker_is_seen_here_and_in_the_readiness(open_bench: Bench) -> None:
    bench = open_bench
    bench.generate()
    job = bench.claim()
    policy = BreakerPolicy(failures=1, rest_s=30.0, rest_cap_s=600.0)

    def fail(uow: UnitOfWork) -> None:
        breakers.record_failure(
            uow, pool=job.pool, profile="tiny", job_id=job.id, reason="out of memory", policy=policy
        )

    bench.app.db.write(fail)

    assert of(scrape(bench), "vidmill_breaker_open", "default", "tiny") == 1
    checks = bench.stranger().get("/readyz").json()["checks"]
    (said,) = [check for check in checks if check["name"].startswith("breaker")]
    assert (said["ok"], "out of memory" in said["detail"]) == (False, True)


@pytest.mark.sqlite
def test_a_database_that_is_away_leaves_the_page_readable(open_bench: Bench) -> None:
    open_bench.break_database()

    found = scrape(open_bench)

    assert of(found, "vidmill_database_up") == 0
    assert not any(name.startswith("vidmill_queue") for name, _ in found)


def test_no_label_holds_an_id(open_bench: Bench) -> None:
    task_id = open_bench.generate()["task_id"]
    open_bench.client.get(f"/v1/t2v/result/{task_id}")
    open_bench.client.get(f"/v1/t2v/status?task_id={task_id}")

    labels = {value for _, values in scrape(open_bench) for value in values}

    assert not any("t2v_" in value or re.search(r"[0-9a-f]{16}", value) for value in labels)


def test_all_that_is_shown_is_in_the_catalogue_with_a_unit(open_bench: Bench) -> None:
    open_bench.generate()
    names = {name for name, _ in scrape(open_bench) if name.startswith("vidmill_")}
    known = {entry.name for entry in CATALOGUE}

    shown = {re.sub("_(bucket|sum|count|created)$", "", name) for name in names}

    assert shown <= known
    assert all(f"`{name}`" in metrics_page() for name in known)


@pytest.mark.parametrize(
    ("token", "given", "client", "may"),
    [
        ("", None, "127.0.0.1", True),
        ("", None, "::1", True),
        ("", None, "10.0.0.7", False),
        ("", "Bearer x", "10.0.0.7", False),
        ("t", None, "127.0.0.1", False),
        ("t", "Bearer t", "10.0.0.7", True),
        ("t", "bearer  t ", "10.0.0.7", True),
        ("t", "Bearer tt", "10.0.0.7", False),
        ("t", "Bearer \xff", "10.0.0.7", False),
        ("t", "t", "10.0.0.7", False),
    ],
)
def test_who_may_read(token: str, given: str | None, client: str, *, may: bool) -> None:
    assert may_read(token, given, client) is may


def test_a_wrong_token_does_not_get_in(open_bench: Bench) -> None:
    answer = TestClient(open_bench.api, headers={"Authorization": "Bearer x"}).get("/metrics")

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_a_stranger_is_told_how_to_get_in(bench: Bench) -> None:
    answer = TestClient(bench.api, client=("10.0.0.7", 1)).get("/metrics")

    assert answer.status_code == 403
    assert "VIDMILL_METRICS_TOKEN" in answer.json()["detail"]


def test_an_idle_api_refuses_nobody_on_this_machine(bench: Bench) -> None:
    assert TestClient(bench.api, client=("127.0.0.1", 1)).get("/metrics").status_code == 200
