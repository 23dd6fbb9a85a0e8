"""The judge is judged: a sound database passes, and each kind of damage is found."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests import databases
from tests.builders import make_database, make_job, make_result
from tests.faults.history import History, jain, percentile
from tests.faults.invariants import breaches
from tests.outboxes import make_endpoint
from vidmill.store import jobs
from vidmill.store.session import Database

PATIENCE_S = 10.0


@pytest.fixture(params=databases.KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """One job that succeeded, one that runs, one that waits; webhooks are told of all of them."""
    databases.choose(request.param)
    db = make_database(tmp_path)
    make_endpoint(db)
    for _ in range(3):
        make_job(db, request={"webhook_url": "https://own.example/"})
    done = claim(db)
    outcome = jobs.Succeeded(result=make_result())
    db.write(lambda u: jobs.settle(u, job_id=done, attempt=1, worker="w1", outcome=outcome))
    claim(db)
    yield db
    db.close()
    databases.choose("sqlite")


def claim(db: Database) -> int:
    job = db.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w1", profile="tiny", lease_s=30.0)
    )
    assert job is not None
    return job.id


def test_sound_database_breaks_nothing(db: Database) -> None:
    assert breaches(db, patience_s=PATIENCE_S) == []


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("UPDATE tenants SET queued = queued + 1", "I5"),
        ("UPDATE flows SET queued = queued + 1", "I5"),
        ("UPDATE user_flows SET queued = queued + 1", "I5"),
        ("UPDATE tenants SET cap_running = 0", "I8"),
        ("UPDATE attempts SET outcome = 'succeeded' WHERE outcome IS NULL", "I3"),
        ("DELETE FROM attempts WHERE outcome IS NULL", "I3"),
        ("UPDATE jobs SET lease_until = 0 WHERE state = 'running'", "I4"),
        (
            (
                "INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)"
                " VALUES (999, 'hold', 'nobody', 1, 1, 5, 0)"
            ),
            "I1",
        ),
        (
            (
                "INSERT INTO ledger (job_id, entry, public_id, tenant_id, user_id, credits, at)"
                " SELECT id, 'capture', public_id, tenant_id, user_id, 7, 0 FROM jobs"
                " WHERE state = 'running'"
            ),
            "I2",
        ),
        (
            (
                "INSERT INTO attempts (job_id, attempt, worker, started_at)"
                " SELECT job_id, 2, 'w2', started_at FROM attempts WHERE outcome IS NULL"
            ),
            "I7",
        ),
        ("DELETE FROM webhook_deliveries WHERE url IS NULL", "I6"),
        ("DELETE FROM webhook_deliveries WHERE url IS NOT NULL", "I6"),
        ("UPDATE webhook_deliveries SET type = 't2v.task.failed'", "I6"),
        (
            (
                "INSERT INTO webhook_deliveries"
                " (public_id, endpoint_id, tenant_id, type, subject, due_at, created_at)"
                " SELECT 'twice', endpoint_id, 1, type, subject, 0, 0 FROM webhook_deliveries"
                " WHERE url IS NULL"
            ),
            "I6",
        ),
    ],
)
def test_damage_is_found(db: Database, damage: str, rule: str) -> None:
    db.write(lambda uow: uow.conn.execute(text(damage)))
    assert rule in {breach.rule[:2] for breach in breaches(db, patience_s=PATIENCE_S)}


def test_only_an_answered_submit_is_a_promise() -> None:
    history = History()
    history.note("c1", "submit", 1.0, end="ok", value={"status": 202, "task_id": "a"})
    history.note("c1", "submit", 2.0, end="fail", value={"status": 503, "task_id": None})
    history.note("c1", "submit", 3.0, end="info", value={"error": "TimeoutError"})
    assert history.acknowledged() == ["a"]
    assert history.statuses("submit") == {202: 1, 503: 1, "TimeoutError": 1}


def test_equal_shares_are_fair_and_one_taker_is_not() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
