"""Accepting, finding and listing jobs."""

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, NoResultFound

from tests.builders import START, FakeClock, make_job, make_new_job, make_result
from tests.claims import take
from vidmill.domain.errors import QueueFull
from vidmill.domain.ids import task_id
from vidmill.domain.job import JobState, Lane, Phase, WireStatus
from vidmill.store import accounts, jobs
from vidmill.store.numbered import numbered_page
from vidmill.store.session import Database


def page(db: Database, **choices: Any) -> list[int]:
    choices = {"limit": 100, **choices}
    return [job.id for job in db.read(lambda conn: jobs.page(conn, 1, **choices))]


def test_accepted_job_is_found_as_it_was_returned(db: Database) -> None:
    job = make_job(db, lane=Lane.VIP, client_reference="r", parent=None, est_cost_s=3.5)
    assert job == db.read(lambda conn: jobs.get(conn, job.public_id, 1))
    assert job == db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert (job.state, job.phase, job.attempt) == (JobState.QUEUED, Phase.WAITING, 0)
    assert job.submitted_at == START


def test_finished_job_is_found_with_its_result(db: Database) -> None:
    job = make_job(db)
    take(db)
    outcome = jobs.Succeeded(result=make_result(seed=99))
    db.write(lambda uow: jobs.settle(uow, job_id=job.id, attempt=1, worker="w1", outcome=outcome))
    found = db.read(lambda conn: jobs.get(conn, job.public_id, 1))
    assert found is not None
    assert found.result == make_result(seed=99)


def test_other_tenants_job_is_unknown(db: Database) -> None:
    job = make_job(db, tenant_id=2)
    assert db.read(lambda conn: jobs.get(conn, job.public_id, 1)) is None


def test_unknown_job_is_none(db: Database) -> None:
    assert db.read(lambda conn: jobs.get(conn, "t2v_0", 1)) is None
    assert db.read(lambda conn: jobs.get_by_id(conn, 7)) is None


def test_public_id_is_used_once(db: Database) -> None:
    new = make_new_job()
    db.write(lambda uow: jobs.insert(uow, new))
    with pytest.raises(IntegrityError, match="public_id"):
        db.write(lambda uow: jobs.insert(uow, new))


def test_full_queue_refuses_and_a_claim_makes_room(db: Database) -> None:
    db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=2))
    for _ in range(2):
        make_job(db)
    with pytest.raises(QueueFull, match="2 is the limit"):
        make_job(db)
    make_job(db, tenant_id=2)
    take(db)
    assert make_job(db)


def test_list_is_newest_first_and_pages_without_gap_or_repeat(db: Database) -> None:
    ids = [make_job(db).id for _ in range(7)]
    make_job(db, tenant_id=2)
    first = page(db, limit=3)
    second = page(db, limit=3, after=first[-1])
    make_job(db)
    third = page(db, limit=3, after=second[-1])
    assert first + second + third == ids[::-1]


def test_list_filters_by_status(db: Database, clock: FakeClock) -> None:
    queued, delayed = make_job(db), make_job(db, not_before=clock.now + 60.0)
    make_job(db, lane=Lane.VIP)
    running = take(db)
    cancelled = make_job(db)
    db.write(lambda uow: jobs.request_cancel(uow, cancelled.public_id, 1))
    found = {status: page(db, filters=jobs.JobFilter(status=status)) for status in WireStatus}
    assert found == {
        WireStatus.QUEUED: [queued.id],
        WireStatus.PROCESSING: [running.id, delayed.id],
        WireStatus.COMPLETED: [],
        WireStatus.FAILED: [],
        WireStatus.CANCELLED: [cancelled.id],
    }


def test_list_filters_by_reference_and_time(db: Database, clock: FakeClock) -> None:
    first = make_job(db, client_reference="a").id
    clock.advance(10.0)
    name = task_id(int(clock.now * 1000), 1)
    second = make_job(db, client_reference="b", public_id=name).id
    assert page(db, filters=jobs.JobFilter(client_reference="b")) == [second]
    assert page(db, filters=jobs.JobFilter(submitted_from=START + 10.0)) == [second]
    assert page(db, filters=jobs.JobFilter(submitted_before=START + 10.0)) == [first]
    assert page(db, filters=jobs.JobFilter(submitted_before=START + 10.0004)) == [second, first]
    assert page(db, filters=jobs.JobFilter(submitted_from=-1.0)) == [second, first]


@pytest.mark.parametrize("filters", [jobs.JobFilter(), jobs.JobFilter(submitted_from=START)])
def test_list_by_number_counts_the_newest_and_no_more(
    db: Database, filters: jobs.JobFilter
) -> None:
    names = [task_id(int(START * 1000), n) for n in range(5)]
    ids = [make_job(db, public_id=name).id for name in names]

    def numbered(offset: int) -> tuple[list[int], int]:
        found = db.read(
            lambda conn: numbered_page(conn, 1, filters=filters, offset=offset, limit=2, most=3)
        )
        return [job.id for job in found.jobs], found.total

    assert numbered(0) == ([ids[4], ids[3]], 3)
    assert numbered(2) == ([ids[2]], 3)


def test_list_by_number_keeps_its_order_where_many_came_at_one_instant(db: Database) -> None:
    names = [task_id(int(START * 1000), n) for n in (3, 0, 4, 1, 2)]
    ids = [make_job(db, public_id=name).id for name in names]
    filters = jobs.JobFilter(submitted_from=START)
    found = db.read(lambda conn: numbered_page(conn, 1, filters=filters, offset=1, limit=3, most=9))
    assert [job.id for job in found.jobs] == ids[3:0:-1]


PLANS = {
    "claim": (
        (
            "SELECT id FROM jobs WHERE pool = 'main' AND lane = 1 AND tenant_id = 1"
            " AND user_id = 1 AND state = 'queued' ORDER BY rank, id LIMIT 1"
        ),
        "jobs_head",
    ),
    "sweep": ("SELECT id FROM jobs WHERE state = 'running' AND lease_until < 1", "jobs_running"),
    "promote": ("SELECT id FROM jobs WHERE state = 'delayed' AND not_before <= 1", "jobs_due"),
    "leader": (
        (
            "SELECT id FROM jobs WHERE tenant_id = 1 AND cache_key = ?1"
            " AND state IN ('queued', 'delayed', 'running', 'review')"
        ),
        "jobs_leader",
    ),
    "original": (
        (
            "SELECT id FROM jobs WHERE tenant_id = 1 AND cache_key = ?1 AND cache_key IS NOT NULL"
            " AND state = 'succeeded' AND files_of IS NULL ORDER BY id DESC LIMIT 1"
        ),
        "jobs_cached",
    ),
    "followers": (
        "SELECT id FROM jobs WHERE leader_id = 1 AND state = 'following'",
        "jobs_followers",
    ),
    "list": ("SELECT id FROM jobs WHERE tenant_id = 1 ORDER BY id DESC", "jobs_list"),
    "list by state": (
        "SELECT id FROM jobs WHERE tenant_id = 1 AND state IN ('failed') ORDER BY id DESC",
        "jobs_list_state",
    ),
    "list by reference": (
        "SELECT id FROM jobs WHERE tenant_id = 1 AND client_reference = ?1 ORDER BY id DESC",
        "jobs_list_reference",
    ),
}


@pytest.mark.sqlite  # the other planner reads small tables whole, and rightly so
@pytest.mark.parametrize("name", PLANS)
def test_no_question_reads_the_whole_table(db: Database, name: str) -> None:
    query, index = PLANS[name]
    values = ("r",) if "?1" in query else ()
    plan = db.read(lambda conn: conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all())
    assert any(f"INDEX {index} " in f"{row.detail} " for row in plan), plan
    assert not any("TEMP B-TREE" in row.detail for row in plan)


class TestAccounts:
    def test_tenant_is_made_once_and_its_caps_follow(self, db: Database) -> None:
        def ensure(cap: int) -> accounts.Tenant:
            return db.write(lambda uow: accounts.ensure_tenant(uow, "studio", cap_queued=cap))

        first, second = ensure(5), ensure(9)
        assert (first.id, 5, 9) == (second.id, first.cap_queued, second.cap_queued)
        assert db.read(lambda conn: accounts.get_tenant(conn, first.id)) == second

    def test_tenant_tells_what_waits_and_runs(self, db: Database) -> None:
        for _ in range(3):
            make_job(db)
        take(db)
        tenant = db.read(lambda conn: accounts.get_tenant(conn, 1))
        assert tenant is not None
        assert (tenant.queued, tenant.running) == (2, 1)

    def test_unknown_tenant_is_none(self, db: Database) -> None:
        assert db.read(lambda conn: accounts.get_tenant(conn, 99)) is None

    def test_key_is_found_by_its_hash_alone(self, db: Database) -> None:
        key = db.write(lambda uow: accounts.create_key(uow, 2, "laptop", "abc"))
        assert db.read(lambda conn: accounts.find_key(conn, "abc")) == key
        assert db.read(lambda conn: accounts.find_key(conn, "abd")) is None

    def test_key_of_nobody_is_refused(self, db: Database) -> None:
        with pytest.raises((IntegrityError, NoResultFound)):
            db.write(lambda uow: accounts.create_key(uow, 99, "laptop", "abc"))
