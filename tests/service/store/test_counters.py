"""Drift of the triggers' counters, made by hand, is found and mended; see also `test_machine`."""

import pytest

from tests.builders import FakeClock, make_job
from vidmill.domain.job import Lane
from vidmill.store import jobs
from vidmill.store.session import Database


@pytest.fixture
def used(db: Database) -> Database:
    for tenant_id in (1, 1, 1, 2):
        make_job(db, tenant_id=tenant_id)
    db.write(lambda uow: jobs.claim(uow, pool="main", worker="w1", profile="tiny", lease_s=30.0))
    return db


@pytest.mark.parametrize(
    ("damage", "drift"),
    [
        ("UPDATE flows SET queued = queued + 1", jobs.Drift(flows=2, tenants=0)),
        ("UPDATE flows SET queued_cost_s = 0", jobs.Drift(flows=2, tenants=0)),
        ("UPDATE flows SET head_at = 1 WHERE tenant_id = 2", jobs.Drift(flows=1, tenants=0)),
        ("DELETE FROM flows", jobs.Drift(flows=2, tenants=0)),
        ("UPDATE tenants SET running = 7 WHERE id = 3", jobs.Drift(flows=0, tenants=1)),
        ("UPDATE tenants SET queued = 0", jobs.Drift(flows=0, tenants=2)),
        (
            "INSERT INTO flows VALUES ('old', 1, 1, 3, 9, 0, 1, 0)",
            jobs.Drift(flows=1, tenants=0),
        ),
        ("UPDATE user_flows SET queued = queued - 1", jobs.Drift(flows=2, tenants=0)),
        ("DELETE FROM user_flows WHERE tenant_id = 1", jobs.Drift(flows=1, tenants=0)),
    ],
)
def test_audit_finds_and_mends_drift(used: Database, damage: str, drift: jobs.Drift) -> None:
    used.write(lambda uow: uow.conn.exec_driver_sql(damage))
    assert used.read(jobs.find_drift) == drift
    assert used.write(jobs.audit) == drift
    assert not used.read(jobs.find_drift)
    assert not used.write(jobs.audit)


def test_oldest_waiting_job_is_known_without_counting(db: Database, clock: FakeClock) -> None:
    for _ in range(3):
        make_job(db)
        clock.advance(10.0)
    start = clock.now - 30.0
    heads = [db.read(lambda conn: jobs.queue_depths(conn, "main"))[Lane.STANDARD].oldest_at]
    for _ in range(2):
        db.write(
            lambda uow: jobs.claim(uow, pool="main", worker="w1", profile="tiny", lease_s=30.0)
        )
        depth = db.read(lambda conn: jobs.queue_depths(conn, "main"))[Lane.STANDARD]
        heads.append(depth.oldest_at)
    assert heads == [start, start + 10.0, start + 20.0]
