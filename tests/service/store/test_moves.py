"""The database itself refuses every move of a job that the domain's table does not have."""

from collections import deque

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.builders import make_job, make_new_job
from vidmill.domain.job import TERMINAL, TRANSITIONS, Job, JobState
from vidmill.store import jobs
from vidmill.store.session import Database

_MOVE = text("""
    UPDATE jobs SET state = :state, worker = 'w', lease_until = 1, not_before = 1, finished_at = 1
     WHERE id = :job""")
_INSERT = text("""
    INSERT INTO jobs (public_id, tenant_id, user_id, pool, lane, state, max_attempts, spec, request,
                      est_cost_s, submitted_at, search_text, worker, lease_until, not_before)
         VALUES ('t2v_new', 1, 1, 'main', 1, :state, 4, '{}', '{}', 1, 1, '', 'w', 1, 1)""")

PAIRS = [(old, new) for old in JobState for new in JobState if old is not new]


def way_to(state: JobState) -> list[JobState]:
    """Return the moves from queued or following that lead to *state*, the first of these apart."""
    ways = deque([[JobState.FOLLOWING if state is JobState.FOLLOWING else JobState.QUEUED]])
    while ways[0][-1] is not state:
        way = ways.popleft()
        ways += [[*way, follower] for follower in TRANSITIONS[way[-1]]]
    return ways[0][1:]


def move(db: Database, job: Job, state: JobState) -> None:
    db.write(lambda uow: uow.conn.execute(_MOVE, {"job": job.id, "state": state}))


def job_in(db: Database, state: JobState) -> Job:
    job = make_job(db, cache_key="same")
    if state is JobState.FOLLOWING:
        leader, job = job, make_job(db, cache_key="same")
        assert job.state is state
        move(db, leader, JobState.CANCELLED)  # by hand: the follower is left alone
    for step in way_to(state):
        move(db, job, step)
    return job


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_database_allows_just_the_moves_of_the_table(
    db: Database, old: JobState, new: JobState
) -> None:
    job = job_in(db, old)
    if new in TRANSITIONS[old]:
        move(db, job, new)
        expected = new
    else:
        with pytest.raises(DBAPIError, match=r"does not move so|never changes"):
            move(db, job, new)
        expected = old
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    assert found.state is expected


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.QUEUED, JobState.DELAYED}))
def test_nothing_is_born_in_the_middle_of_its_life(db: Database, state: JobState) -> None:
    with pytest.raises(DBAPIError, match="a job begins queued"):
        db.write(lambda uow: uow.conn.execute(_INSERT, {"state": state}))


@pytest.mark.parametrize(
    "change",
    [
        "public_id = 'x'",
        "tenant_id = 2",
        "user_id = 2",
        "pool = 'x'",
        "lane = 0",
        "est_cost_s = 1",
        "price_credits = 1",
        "cache_key = 'x'",
    ],
)
def test_what_a_job_is_counted_and_billed_by_never_changes(db: Database, change: str) -> None:
    make_job(db)
    with pytest.raises(DBAPIError, match="a job keeps its"):
        db.write(lambda uow: uow.conn.exec_driver_sql(f"UPDATE jobs SET {change}"))


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize("change", ["result = '{}'", "files_of = 'x'", "attempt = 9"])
def test_a_finished_job_never_changes(db: Database, state: JobState, change: str) -> None:
    job_in(db, state)
    with pytest.raises(DBAPIError, match="a finished job never changes"):
        db.write(lambda uow: uow.conn.exec_driver_sql(f"UPDATE jobs SET {change}"))


@pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
def test_a_live_job_is_never_deleted(db: Database, state: JobState) -> None:
    job = job_in(db, state)
    with pytest.raises(DBAPIError, match="a live job is never deleted"):
        db.write(lambda uow: jobs.erase(uow, job.id))


@pytest.mark.parametrize("change", ["UPDATE ledger SET credits = 0", "DELETE FROM ledger"])
def test_the_ledger_is_only_ever_added_to(db: Database, change: str) -> None:
    db.write(lambda uow: jobs.insert(uow, make_new_job(price_credits=30)))
    with pytest.raises(DBAPIError, match="append-only"):
        db.write(lambda uow: uow.conn.exec_driver_sql(change))
