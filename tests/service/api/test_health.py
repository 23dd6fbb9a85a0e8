"""Probes, and what `/readyz` says is missing."""

from pathlib import Path

import pytest

from tests.desks import Bench, make_bench
from vidmill.api.dialects.native_models import Capabilities
from vidmill.store import workers
from vidmill.store.workers import WorkerState

pytestmark = pytest.mark.sqlite
"""What is tried here is HTTP; `tests/service/store` and others try both databases."""


def register(bench: Bench, state: WorkerState, detail: str = "") -> None:
    pool = bench.app.settings.pool
    bench.app.db.write(
        lambda uow: workers.register(
            uow, worker="w1", pool=pool, host="h", pid=1, profile="tiny", lease_s=30.0
        )
    )
    bench.app.db.write(
        lambda uow: workers.renew(uow, worker="w1", lease_s=30.0, state=state, detail=detail)
    )


def test_a_living_process_says_so_without_a_key(bench: Bench) -> None:
    assert bench.stranger().get("/livez").json() == {"status": "ok"}


def test_without_a_worker_nothing_is_ready(bench: Bench) -> None:
    answer = bench.stranger().get("/readyz")

    assert (answer.status_code, answer.json()["status"]) == (503, "starting")
    assert "no worker" in answer.json()["checks"][1]["detail"]


def test_what_is_still_loading_is_said(bench: Bench) -> None:
    register(bench, WorkerState.LOADING, "warming 1/2")

    answer = bench.stranger().get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"][1]["detail"] == "warming 1/2"


def test_with_a_warm_worker_all_is_ready(bench: Bench) -> None:
    register(bench, WorkerState.READY)

    answer = bench.stranger().get("/readyz")

    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert all(check["ok"] for check in answer.json()["checks"])


def test_a_worker_that_fell_silent_does_not_count(bench: Bench) -> None:
    register(bench, WorkerState.READY)
    bench.clock.advance(31)

    assert bench.stranger().get("/readyz").status_code == 503


@pytest.mark.sqlite
def test_a_database_that_cannot_be_read_is_named(bench: Bench) -> None:
    bench.break_database()

    answer = bench.stranger().get("/readyz")

    assert (answer.status_code, answer.json()["checks"][0]["ok"]) == (503, False)


def test_capabilities_state_the_limits_that_requests_are_checked_against(bench: Bench) -> None:
    mine = bench.client.get("/v1/t2v/capabilities").json()
    theirs = bench.other().get("/v1/t2v/capabilities").json()

    assert mine["duration"] == {"min": 3.0, "max": 10.0, "step": 0.1}
    assert [size["name"] for size in mine["resolutions"]] == ["480p", "720p"]
    assert mine["limits"]["prompt_max_chars"] == 200
    assert ("high" in mine["priorities"], "high" in theirs["priorities"]) == (True, False)


@pytest.mark.parametrize(
    ("profile", "engine"),
    [
        ("tiny", {"name": "wan", "is_remote": False, "progress": "step", "cancel": "now"}),
        (
            "remote-openai",
            {"name": "openai_videos", "is_remote": True, "progress": "state", "cancel": "queued"},
        ),
    ],
)
def test_capabilities_say_what_may_be_expected_of_the_engine(
    tmp_path: Path, profile: str, engine: dict[str, object]
) -> None:
    bench = make_bench(tmp_path, profile=profile)
    found = bench.client.get("/v1/t2v/capabilities").json()
    bench.close()
    assert found["engine"] == engine
    assert Capabilities.model_validate(found).model_dump()["engine"] == engine
