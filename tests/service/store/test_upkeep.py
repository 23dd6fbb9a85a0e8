"""Lost runs, stuck runs, restarts and due retries."""

import pytest

from tests.builders import FakeClock, make_job
from tests.claims import take
from vidmill.domain.job import Job, JobState, Phase, RetryPolicy
from vidmill.store import jobs
from vidmill.store.session import Database
from vidmill.store.upkeep import BACKSTOP_S, BATCH

POLICY = RetryPolicy()
LIMIT_S = 1800.0


def sweep(db: Database, *, limit: int = BATCH) -> list[jobs.Settled]:
    return db.write(
        lambda uow: jobs.sweep(
            uow, policy=POLICY, jitter=lambda: 0.5, time_limit_s=LIMIT_S, limit=limit
        )
    )


def release(db: Database, *live: str) -> list[jobs.Settled]:
    return db.write(lambda uow: jobs.release_dead(uow, live=live))


def read(db: Database, job: Job) -> Job:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found


def test_living_run_is_left_alone(db: Database, clock: FakeClock) -> None:
    make_job(db)
    take(db)
    clock.advance(30.0)
    assert sweep(db) == []


def test_run_whose_lease_expired_is_tried_again_later(db: Database, clock: FakeClock) -> None:
    make_job(db)
    job = take(db)
    clock.advance(31.0)
    (swept,) = sweep(db)
    after = read(db, job)
    assert (swept.job, swept.state) == (after, JobState.DELAYED)
    assert ("worker_lost", clock.now + 10.0) == (after.error_code, after.not_before)
    assert sweep(db) == []


def test_last_attempt_that_is_lost_fails_the_job(db: Database, clock: FakeClock) -> None:
    make_job(db, max_attempts=1)
    job = take(db)
    clock.advance(31.0)
    assert [run.state for run in sweep(db)] == [JobState.FAILED]
    assert read(db, job).error_code == "worker_lost"


@pytest.mark.parametrize("max_attempts", [1, 4])
def test_lost_run_whose_cancellation_was_requested_is_cancelled(
    db: Database, clock: FakeClock, max_attempts: int
) -> None:
    make_job(db, max_attempts=max_attempts)
    job = take(db)
    db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))
    clock.advance(31.0)
    assert [run.state for run in sweep(db)] == [JobState.CANCELLED]


def test_run_far_over_the_limit_fails_though_its_lease_is_kept(
    db: Database, clock: FakeClock
) -> None:
    make_job(db)
    job = take(db)
    clock.advance(LIMIT_S + BACKSTOP_S)
    here = jobs.Progress(job.id, 1, Phase.DENOISING, 0.5)
    db.write(lambda uow: jobs.heartbeat(uow, worker="w1", lease_s=30.0, progress=[here]))
    assert sweep(db) == []
    clock.advance(1.0)
    assert [run.state for run in sweep(db)] == [JobState.FAILED]
    assert read(db, job).error_code == "timed_out"


def test_sweep_is_bounded(db: Database, clock: FakeClock) -> None:
    for _ in range(3):
        make_job(db)
        take(db)
    clock.advance(31.0)
    assert [len(sweep(db, limit=2)) for _ in range(3)] == [2, 1, 0]


def test_lost_run_is_charged_no_longer_than_its_lease(db: Database, clock: FakeClock) -> None:
    make_job(db)
    take(db)
    clock.advance(86_400.0)
    sweep(db)
    query = "SELECT seconds FROM attempts"
    assert db.read(lambda conn: conn.exec_driver_sql(query).scalar_one()) == 30.0


def test_restart_takes_up_dead_workers_jobs_at_once(db: Database, clock: FakeClock) -> None:
    make_job(db)
    job = take(db, "dead")
    assert [run.state for run in release(db)] == [JobState.QUEUED]
    again = take(db, "new")
    assert (job.id, 2, job.max_attempts) == (again.id, again.attempt, again.max_attempts)


def test_restart_leaves_living_workers_jobs_alone(db: Database) -> None:
    make_job(db)
    take(db, "alive")
    assert release(db, "alive", "other") == []


def test_start_beside_others_leaves_all_but_the_dead_alone(db: Database) -> None:
    for worker in ("dead", "elsewhere"):
        make_job(db)
        take(db, worker)
    released = db.write(lambda uow: jobs.release_dead(uow, dead=["dead"]))
    assert [(run.job.id, run.state) for run in released] == [(1, JobState.QUEUED)]


def test_job_that_takes_the_machine_down_ends_after_its_attempts(db: Database) -> None:
    job = make_job(db, max_attempts=2)
    states = []
    for _ in range(2):
        take(db, "dead")
        states += [run.state for run in release(db)]
    assert states == [JobState.QUEUED, JobState.FAILED]
    assert read(db, job).error_code == "worker_lost"


@pytest.mark.parametrize("max_attempts", [1, 4])
def test_restart_cancels_what_was_to_be_cancelled(db: Database, max_attempts: int) -> None:
    make_job(db, max_attempts=max_attempts)
    job = take(db, "dead")
    db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))
    assert [run.state for run in release(db)] == [JobState.CANCELLED]


def test_promote_names_the_pools_that_got_work(db: Database, clock: FakeClock) -> None:
    for pool in ("a", "b", "b"):
        make_job(db, pool=pool, not_before=clock.now + 5.0)
    make_job(db, pool="c", not_before=clock.now + 50.0)
    clock.advance(5.0)
    assert {"a", "b"} == db.write(jobs.promote)
    assert set() == db.write(jobs.promote)


@pytest.mark.parametrize(("not_before", "state"), [(-1.0, "queued"), (1.0, "delayed")])
def test_job_with_an_instant_ahead_begins_delayed(
    db: Database, clock: FakeClock, not_before: float, state: str
) -> None:
    assert state == make_job(db, not_before=clock.now + not_before).state
