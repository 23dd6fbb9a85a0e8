"""Clips of a day: what counts, what does not, and that no two requests share the last one."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from tests.builders import FakeClock, make_new_job, make_result
from tests.claims import settle, take
from vidmill.domain.errors import QuotaExceeded, VidmillError
from vidmill.domain.job import Job
from vidmill.store import accounts, daily, jobs
from vidmill.store.models import COUNTS_FOR_THE_DAY
from vidmill.store.session import Connection, Database

DAY_S = 86_400


def allow(db: Database, clips_per_day: int | None) -> None:
    plan = accounts.Plan(name="default", clips_per_day=clips_per_day)
    db.write(lambda uow: accounts.save_plan(uow, plan))


def order(db: Database, **changes: Any) -> Job:
    return db.write(lambda uow: jobs.insert(uow, make_new_job(**changes), 3600.0))


def clips(db: Database, tenant_id: int = 1) -> int:
    return db.read(lambda conn: daily.clips_of(conn, tenant_id, now=db.now()))


def fail(db: Database) -> None:
    settle(db, take(db), jobs.Failed(code="bad_output", message="black"))


def succeed(db: Database) -> None:
    settle(db, take(db), jobs.Succeeded(result=make_result()))


def cancel(db: Database, job: Job) -> None:
    db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))


def test_day_holds_as_many_clips_as_the_plan_allows(db: Database) -> None:
    allow(db, 2)
    order(db)
    order(db)
    with pytest.raises(QuotaExceeded, match="2 clips a day, and these would be 3"):
        order(db)
    assert clips(db) == 2


def test_other_tenants_have_days_of_their_own(db: Database) -> None:
    allow(db, 1)
    order(db)
    order(db, tenant_id=2)
    assert (clips(db), clips(db, 2)) == (1, 1)


def test_day_is_utc_and_the_next_begins_at_nothing(db: Database, clock: FakeClock) -> None:
    allow(db, 1)
    clock.now = 20_000 * DAY_S + DAY_S - 0.5
    order(db)
    with pytest.raises(QuotaExceeded) as refused:
        order(db)
    assert refused.value.retry_after_s == 0.5
    clock.advance(0.5)
    order(db)


def test_failed_clip_gives_its_place_back(db: Database) -> None:
    allow(db, 1)
    order(db)
    fail(db)
    order(db)
    succeed(db)
    with pytest.raises(QuotaExceeded):
        order(db)


def test_clip_cancelled_before_its_first_run_gives_its_place_back(db: Database) -> None:
    allow(db, 1)
    cancel(db, order(db))
    assert clips(db) == 0
    order(db)
    running = take(db)
    cancel(db, running)
    settle(db, running, jobs.Cancelled())
    assert clips(db) == 1


def test_clip_from_the_cache_takes_no_place(db: Database) -> None:
    allow(db, 1)
    order(db, cache_key="k")
    succeed(db)
    answered = order(db, cache_key="k")
    assert (answered.is_terminal, clips(db)) == (True, 1)


def test_follower_holds_a_place_until_its_leader_has_made_its_clip(db: Database) -> None:
    allow(db, 2)
    order(db, cache_key="k")
    order(db, cache_key="k")
    assert clips(db) == 2
    with pytest.raises(QuotaExceeded):
        order(db, cache_key="k")
    succeed(db)
    assert clips(db) == 1


def test_deleted_clip_goes_on_counting(db: Database) -> None:
    allow(db, 2)
    done, waiting = order(db), order(db)
    succeed(db)
    cancel(db, waiting)
    db.write(lambda uow: remove(uow.conn, done, waiting))
    assert clips(db) == 1


def remove(conn: Connection, *gone: Job) -> None:
    ids = [{"id": job.id} for job in gone]
    conn.execute(text("DELETE FROM attempts WHERE job_id = :id"), ids)
    conn.execute(text("DELETE FROM jobs WHERE id = :id"), ids)


def test_many_that_do_not_all_fit_are_refused_together(db: Database) -> None:
    allow(db, 3)
    order(db)
    news = [make_new_job() for _ in range(3)]
    with pytest.raises(QuotaExceeded, match="these would be 4"):
        db.write(lambda uow: jobs.insert_many(uow, news))
    assert clips(db) == 1
    db.write(lambda uow: jobs.insert_many(uow, news[:2]))
    assert clips(db) == 3


def test_twins_in_a_batch_count_too(db: Database) -> None:
    allow(db, 2)
    news = [make_new_job(cache_key="k") for _ in range(3)]
    with pytest.raises(QuotaExceeded, match="these would be 3"):
        db.write(lambda uow: jobs.insert_many(uow, news))
    assert clips(db) == 0


def test_plan_without_a_quota_counts_nothing_and_refuses_nothing(db: Database) -> None:
    allow(db, 1)
    order(db)
    allow(db, None)
    order(db)
    assert clips(db) == 2


def follow(_: int) -> dict[str, Any]:
    return {"cache_key": "k"}


def delay(_: int) -> dict[str, Any]:
    return {"not_before": 4e9}


@pytest.mark.parametrize("how", [lambda _: {}, follow, delay], ids=["alone", "following", "later"])
def test_quota_is_exact_however_many_ask_at_once(
    db: Database, how: Callable[[int], dict[str, Any]]
) -> None:
    allow(db, 5)
    start, refused = threading.Barrier(12, timeout=30), []

    def ask(number: int) -> None:
        start.wait()
        try:
            order(db, **how(number))
        except VidmillError as error:
            refused.append(type(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (refused, clips(db)) == ([QuotaExceeded] * 7, 5)


@pytest.mark.sqlite
def test_counting_reads_what_counts_and_no_more(db: Database) -> None:
    query = (
        "EXPLAIN QUERY PLAN SELECT count(*) FROM jobs"
        f" WHERE tenant_id = 1 AND submitted_at >= 0.0 AND {COUNTS_FOR_THE_DAY}"
    )
    plan = db.read(lambda conn: str(conn.exec_driver_sql(query).all()))
    assert "USING INDEX jobs_day" in plan
