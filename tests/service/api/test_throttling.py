"""Rates and quotas at the door: the headers, 429, and that a plan without limits pays nothing."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.desks import Bench
from vidmill.domain.job import Lane
from vidmill.store import accounts

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""

STATUS = "/v1/t2v/capabilities"
POLICY = re.compile(r'"[a-z-]+";q=\d+;w=\d+(, "[a-z-]+";q=\d+;w=\d+)*')
LEFT = re.compile(r'"[a-z-]+";r=\d+;t=\d+(, "[a-z-]+";r=\d+;t=\d+)*')


def allow(bench: Bench, **limits: int | None) -> None:
    """Give tenant 1 a plan with these limits; nobody has been let in yet."""
    plan = accounts.Plan(name="default", lane=Lane.VIP, **limits)  # type: ignore[arg-type]
    bench.app.db.write(lambda uow: accounts.save_plan(uow, plan))


def submit(client: TestClient, **changes: Any) -> Any:
    return client.post("/v1/t2v/generate", json={"prompt": "a ball", "cache": False, **changes})


def standings(bench: Bench) -> dict[str, tuple[int, int, int]]:
    doc = bench.client.get("/v1/t2v/quota").json()
    return {s["name"]: (s["limit"], s["used"], s["remaining"]) for s in doc["limits"]}


def codes(answers: Sequence[Any]) -> list[int]:
    return [answer.status_code for answer in answers]


def test_key_that_asks_too_often_is_told_which_limit_and_when(bench: Bench) -> None:
    allow(bench, key_submits_per_min=2)
    bench.clock.advance(20)  # of the minute
    answers = [submit(bench.client) for _ in range(3)]
    assert codes(answers) == [202, 202, 429]
    problem = answers[2].json()
    assert (problem["code"], problem["retryable"]) == ("rate_limited", True)
    assert "this key may send 2 requests a minute of the kind 'submit'" in problem["detail"]
    assert answers[2].headers["retry-after"] == "40"
    assert answers[2].headers["ratelimit"] == '"submit";r=0;t=40'
    bench.clock.advance(40)
    assert submit(bench.client).status_code == 202


def test_headers_say_what_is_left_of_each_limit(bench: Bench) -> None:
    allow(bench, key_submits_per_min=5, tenant_submits_per_min=9, clips_per_day=100)
    answer = submit(bench.client)
    assert answer.headers["ratelimit-policy"] == (
        '"submit";q=5;w=60, "tenant-submit";q=9;w=60, "daily";q=100;w=86400'
    )
    left = answer.headers["ratelimit"]
    assert left.startswith('"submit";r=4;t=60, "tenant-submit";r=8;t=60, "daily";r=')
    assert POLICY.fullmatch(answer.headers["ratelimit-policy"])
    assert LEFT.fullmatch(left)


def test_headers_come_with_errors_and_reads_too_but_not_with_401(bench: Bench) -> None:
    allow(bench, key_reads_per_min=10, key_submits_per_min=10)
    assert bench.client.get("/v1/t2v/tasks/nothing").headers["ratelimit"] == '"read";r=9;t=60'
    assert submit(bench.client, prompt="").headers["ratelimit"] == '"submit";r=9;t=60'
    assert "ratelimit" not in bench.stranger().get(STATUS).headers
    assert "ratelimit-policy" not in bench.stranger().get(STATUS).headers


def test_reading_takes_nothing_from_submitting(bench: Bench) -> None:
    allow(bench, key_submits_per_min=1, key_reads_per_min=2)
    assert codes([bench.client.get(STATUS) for _ in range(3)]) == [200, 200, 429]
    assert submit(bench.client).status_code == 202


def test_keys_of_a_tenant_share_its_limit_and_other_tenants_none_of_it(bench: Bench) -> None:
    allow(bench, tenant_reads_per_min=2)
    clients = [bench.client, bench.colleague(), bench.client]
    answers = [client.get(STATUS) for client in clients]
    assert codes(answers) == [200, 200, 429]
    assert "your tenant's keys together" in answers[2].json()["detail"]
    assert bench.other().get(STATUS).status_code == 200


def test_key_that_is_refused_takes_nothing_from_its_tenant(bench: Bench) -> None:
    allow(bench, key_reads_per_min=1, tenant_reads_per_min=3)
    assert codes([bench.client.get(STATUS) for _ in range(5)]) == [200, 429, 429, 429, 429]
    assert bench.colleague().get(STATUS).status_code == 200


def test_plan_without_limits_has_no_headers_and_nothing_is_counted(bench: Bench) -> None:
    answer = submit(bench.client)
    assert "ratelimit" not in answer.headers
    assert "vidmill_http_requests_uncounted_total 0.0" in metrics(bench)


def metrics(bench: Bench) -> str:
    text: str = TestClient(bench.api, client=("127.0.0.1", 1)).get("/metrics").text
    return text


def test_quota_of_a_plan_without_limits_tells_of_the_queue_alone(bench: Bench) -> None:
    assert set(standings(bench)) == {"queued", "running"}


def test_refusals_are_counted_by_limit(bench: Bench) -> None:
    allow(bench, key_reads_per_min=1)
    for _ in range(3):
        bench.client.get(STATUS)
    assert 'vidmill_http_requests_limited_total{limit="read"} 2.0' in metrics(bench)


def test_quota_tells_how_every_limit_stands(bench: Bench) -> None:
    allow(bench, key_submits_per_min=5, key_reads_per_min=7, clips_per_day=3)
    submit(bench.client)
    bench.generate()
    bench.claim()
    assert standings(bench) == {
        "submit": (5, 2, 3),
        "read": (7, 1, 6),
        "daily": (3, 2, 1),
        "queued": (accounts.CAP_DEFAULT, 1, accounts.CAP_DEFAULT - 1),
        "running": (accounts.CAP_DEFAULT, 1, accounts.CAP_DEFAULT - 1),
    }
    doc = bench.client.get("/v1/t2v/quota").json()
    assert (doc["tenant"], doc["plan"], doc["lane"]) == ("default", "default", "vip")


def test_daily_quota_says_when_the_next_day_begins(bench: Bench) -> None:
    allow(bench, clips_per_day=1)
    bench.clock.now = 20_000 * 86_400.0 + 22 * 3600  # 22:00 UTC
    assert submit(bench.client).status_code == 202
    refused = submit(bench.client)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert refused.json()["retryable"] is False
    assert "allows 1 clips a day" in refused.json()["detail"]
    assert refused.headers["retry-after"] == str(2 * 3600)
    bench.clock.advance(2 * 3600)
    assert submit(bench.client).status_code == 202
