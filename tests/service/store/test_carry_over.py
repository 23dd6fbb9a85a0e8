"""A database of the first release comes up with all its jobs, and works on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from tests import ledgers
from tests.builders import START, FakeClock, make_result, make_spec
from tests.claims import claim_some, settle
from vidmill.domain.job import TERMINAL, JobState, Lane
from vidmill.store import accounts, jobs, ledger, migrate, sqlite
from vidmill.store.session import Database, open_database

pytestmark = pytest.mark.sqlite

OLD_STATES = tuple(state for state in JobState if state is not JobState.FOLLOWING)
NUM_EACH = 3
_INSERT = text("""
    INSERT INTO jobs (public_id, tenant_id, pool, lane, state, max_attempts, spec, request,
                      est_cost_s, submitted_at, search_text, not_before)
         VALUES (:public, :tenant, 'main', :lane, 'queued', 4, :spec, '{}', 2.5, :at, '', 1)
      RETURNING id""")
_MOVE = text("""
    UPDATE jobs SET state = :state, worker = 'w', lease_until = 1,
           finished_at = CASE WHEN :is_over THEN 1900000000 END
     WHERE id = :job""")


def fill(conn: Connection) -> None:
    """Two tenants with a key each, and jobs in every state the first release had."""
    for number in (1, 2):
        conn.exec_driver_sql(
            "INSERT INTO tenants (name, weight, cap_running, cap_queued, created_at)"
            f" VALUES ('t{number}', 2.0, 5, 50, 7.0)"
        )
        conn.exec_driver_sql(
            "INSERT INTO api_keys (tenant_id, name, key_hash, created_at)"
            f" VALUES ({number}, 'laptop', 'hash{number}', 8.0)"
        )
    spec = json.dumps(make_spec().to_json())
    for number in range(NUM_EACH * len(OLD_STATES)):
        values = {"public": f"t2v_{number}", "tenant": 1 + number % 2, "at": START + number}
        values |= {"spec": spec, "lane": Lane(number % 3)}
        job_id = conn.execute(_INSERT, values).scalar_one()
        state = OLD_STATES[number % len(OLD_STATES)]
        way = [] if state is JobState.QUEUED else [JobState.RUNNING, state]
        for step in way:
            conn.execute(_MOVE, {"job": job_id, "state": step, "is_over": step in TERMINAL})


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    """A database of the first release, opened by this one."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    migrate.upgrade(url, "0001")
    engine = sqlite.make_engine(url)
    with sqlite.connect(engine) as conn:
        conn.exec_driver_sql("BEGIN")
        fill(conn)
        conn.exec_driver_sql("COMMIT")
    engine.dispose()
    migrate.upgrade(url)
    db = open_database(url, clock=FakeClock())
    yield db
    db.close()


def states(db: Database) -> dict[JobState, int]:
    rows = db.read(
        lambda conn: conn.exec_driver_sql("SELECT state, count(*) FROM jobs GROUP BY state").all()
    )
    return {JobState(state): count for state, count in rows}


def test_every_job_is_there_in_its_state(old: Database) -> None:
    assert states(old) == dict.fromkeys(OLD_STATES, NUM_EACH)


def test_counters_are_right_at_once(old: Database) -> None:
    assert not old.read(jobs.find_drift)


def test_every_tenant_has_the_default_plan_and_keeps_its_limits(old: Database) -> None:
    for tenant in old.read(accounts.all_tenants):
        assert (tenant.weight, tenant.cap_running, tenant.cap_queued) == (2.0, 5, 50)
        assert tenant.plan_id == 1


def test_every_key_and_job_is_the_default_users(old: Database) -> None:
    for number in (1, 2):
        found = old.read(lambda conn, n=number: accounts.find_caller_rows(conn, f"hash{n}"))  # type: ignore[misc]
        assert found is not None
        assert (found.tenant.name, found.user.name) == (f"t{number}", "default")
        assert found.plan.name == "default"
        owned = old.read(lambda conn, n=number: jobs.page(conn, n, limit=99))  # type: ignore[misc]
        assert {job.user_id for job in owned} == {found.user.id}


def test_jobs_of_before_cost_nothing_and_the_ledger_agrees(old: Database) -> None:
    assert old.read(ledger.audit) == []
    for tenant_id in (1, 2):
        balance = old.read(lambda conn, t=tenant_id: ledgers.balance(conn, t))  # type: ignore[misc]
        assert balance == ledgers.Balance(held=0, captured=0)


def test_its_jobs_run_on(old: Database) -> None:
    for _ in range(NUM_EACH):
        settle(old, claim_some(old), jobs.Succeeded(result=make_result()))
    assert states(old)[JobState.SUCCEEDED] == 2 * NUM_EACH
    assert not old.read(jobs.find_drift)
    assert old.read(ledger.audit) == []
