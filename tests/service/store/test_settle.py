"""Ending runs: the fence, each outcome, and cancellation."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from tests.builders import FakeClock, make_job, make_result, make_spec
from vidmill.domain.job import TERMINAL, Job, JobState, Phase
from vidmill.store import jobs, learning
from vidmill.store.models import attempts
from vidmill.store.session import Database


def running(db: Database, **changes: object) -> Job:
    make_job(db, **changes)
    job = db.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w1", lease_s=30.0, profile="tiny")
    )
    assert job is not None
    return job


def settle(
    db: Database, job: Job, outcome: jobs.Outcome, *, attempt: int = 1, worker: str = "w1"
) -> JobState | None:
    settled = db.write(
        lambda uow: jobs.settle(uow, job_id=job.id, attempt=attempt, worker=worker, outcome=outcome)
    )
    return None if settled is None else settled.state


def read(db: Database, job: Job) -> Job:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found


def attempt_rows(db: Database, job: Job) -> list[tuple[object, ...]]:
    query = select(
        attempts.c.attempt, attempts.c.outcome, attempts.c.error_code, attempts.c.seconds
    ).where(attempts.c.job_id == job.id)
    return [tuple(row) for row in db.read(lambda conn: conn.execute(query).all())]


FAILED = jobs.Failed(code="engine_failed", message="It broke.")
ENDINGS: list[jobs.Outcome] = [
    jobs.Succeeded(result=make_result()),
    FAILED,
    jobs.Cancelled(),
]


def test_success_keeps_the_result_and_ends_the_attempt(db: Database, clock: FakeClock) -> None:
    job = running(db)
    clock.advance(12.0)
    assert settle(db, job, jobs.Succeeded(result=make_result())) == JobState.SUCCEEDED
    after = read(db, job)
    assert (after.state, after.phase, after.progress) == (JobState.SUCCEEDED, Phase.DONE, 1.0)
    assert (make_result(), clock.now) == (after.result, after.finished_at)
    assert attempt_rows(db, job) == [(1, "succeeded", None, 12.0)]


def test_success_forgets_the_error_of_an_earlier_attempt(db: Database, clock: FakeClock) -> None:
    job = running(db)
    again = jobs.Delayed(not_before=clock.now, code="engine_failed", message="It broke.")
    settle(db, job, again)
    db.write(jobs.promote)
    db.write(lambda uow: jobs.claim(uow, pool="main", worker="w2", lease_s=30.0, profile="tiny"))
    settle(db, job, jobs.Succeeded(result=make_result()), attempt=2, worker="w2")
    after = read(db, job)
    assert (after.error_code, after.error_message) == (None, None)
    outcomes = [(1, "delayed", "engine_failed", 0.0), (2, "succeeded", None, 0.0)]
    assert outcomes == attempt_rows(db, job)


def test_failure_keeps_code_and_message(db: Database) -> None:
    job = running(db)
    assert settle(db, job, FAILED) == JobState.FAILED
    after = read(db, job)
    assert (after.error_code, after.error_message) == ("engine_failed", "It broke.")


def test_delayed_run_waits_for_its_instant(db: Database, clock: FakeClock) -> None:
    job = running(db)
    outcome = jobs.Delayed(not_before=clock.now + 10.0, code="worker_lost", message="Lost.")
    assert settle(db, job, outcome) == JobState.DELAYED
    after = read(db, job)
    assert (Phase.RETRY_WAIT, clock.now + 10.0) == (after.phase, after.not_before)
    assert set() == db.write(jobs.promote)
    clock.advance(10.0)
    assert {"main"} == db.write(jobs.promote)
    assert (read(db, job).state, read(db, job).not_before) == (JobState.QUEUED, None)


def test_drain_does_not_cost_a_retry(db: Database) -> None:
    job = running(db)
    assert settle(db, job, jobs.Requeued()) == JobState.QUEUED
    after = read(db, job)
    assert (1, job.max_attempts + 1) == (after.attempt, after.max_attempts)
    assert attempt_rows(db, job) == [(1, "queued", None, 0.0)]


def test_counted_requeue_costs_a_retry(db: Database) -> None:
    job = running(db)
    settle(db, job, jobs.Requeued(is_counted=True, code="worker_lost", message="Lost."))
    assert job.max_attempts == read(db, job).max_attempts


@pytest.mark.parametrize("outcome", ENDINGS, ids=lambda outcome: str(outcome.state))
@pytest.mark.parametrize(("attempt", "worker"), [(2, "w1"), (0, "w1"), (1, "w2")])
def test_zombie_writes_nothing(
    db: Database, outcome: jobs.Outcome, attempt: int, worker: str
) -> None:
    job = running(db)
    before = read(db, job)
    assert settle(db, job, outcome, attempt=attempt, worker=worker) is None
    assert before == read(db, job)
    assert attempt_rows(db, job) == [(1, None, None, None)]


@pytest.mark.parametrize("outcome", ENDINGS, ids=lambda outcome: str(outcome.state))
def test_late_write_of_an_old_attempt_changes_nothing(
    db: Database, clock: FakeClock, outcome: jobs.Outcome
) -> None:
    job = running(db)
    settle(db, job, jobs.Delayed(not_before=clock.now, code="worker_lost", message="Lost."))
    db.write(jobs.promote)
    second = db.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w2", lease_s=30.0, profile="tiny")
    )
    assert settle(db, job, outcome, attempt=1) is None
    assert second == read(db, job)


@pytest.mark.parametrize("first", ENDINGS, ids=lambda outcome: str(outcome.state))
@pytest.mark.parametrize("second", ENDINGS, ids=lambda outcome: str(outcome.state))
def test_second_ending_changes_nothing(
    db: Database, first: jobs.Outcome, second: jobs.Outcome
) -> None:
    job = running(db)
    settle(db, job, first)
    before = read(db, job)
    assert settle(db, job, second) is None
    assert before == read(db, job)


@pytest.mark.parametrize("outcome", ENDINGS, ids=lambda outcome: str(outcome.state))
@pytest.mark.parametrize(
    "change",
    ["state = 'queued'", "result = '{}'", "attempt = 9", "finished_at = 0", "worker = 'w9'"],
)
def test_database_refuses_to_change_a_finished_job(
    db: Database, outcome: jobs.Outcome, change: str
) -> None:
    job = running(db)
    settle(db, job, outcome)
    with pytest.raises(DBAPIError, match=r"a finished job never changes|a job does not move so"):
        db.write(lambda uow: uow.conn.exec_driver_sql(f"UPDATE jobs SET {change}"))
    assert read(db, job).state in TERMINAL


def test_database_refuses_a_running_job_without_a_lease(db: Database) -> None:
    job = make_job(db)
    with pytest.raises(DBAPIError, match="jobs_running_has_lease"):
        db.write(lambda uow: uow.conn.exec_driver_sql("UPDATE jobs SET state = 'running'"))
    assert read(db, job).state == JobState.QUEUED


def test_database_refuses_to_move_a_job_to_another_pool(db: Database) -> None:
    make_job(db)
    with pytest.raises(DBAPIError, match="keeps its id"):
        db.write(lambda uow: uow.conn.exec_driver_sql("UPDATE jobs SET pool = 'vip'"))


def test_database_refuses_to_delete_a_live_job(db: Database) -> None:
    make_job(db)
    with pytest.raises(DBAPIError, match="never deleted"):
        db.write(lambda uow: uow.conn.exec_driver_sql("DELETE FROM jobs"))


def test_database_refuses_a_job_born_running(db: Database) -> None:
    make_job(db)
    copy = (
        "INSERT INTO jobs (public_id, tenant_id, pool, lane, state, max_attempts, spec, request,"
        " est_cost_s, submitted_at, worker, lease_until)"
        " SELECT 'copy', tenant_id, pool, lane, 'running', 4, spec, request, 1, 0, 'w', 1 FROM jobs"
    )
    with pytest.raises(DBAPIError, match="begins queued, delayed, following"):
        db.write(lambda uow: uow.conn.exec_driver_sql(copy))


class TestCancel:
    def cancel(self, db: Database, job: Job, *, tenant_id: int = 1) -> Job | None:
        settled = db.write(lambda uow: jobs.request_cancel(uow, job.public_id, tenant_id))
        return None if settled is None else settled.job

    def test_queued_job_is_cancelled_at_once(self, db: Database, clock: FakeClock) -> None:
        job = self.cancel(db, make_job(db))
        assert job is not None
        assert (JobState.CANCELLED, clock.now) == (job.state, job.finished_at)

    def test_delayed_job_is_cancelled_at_once(self, db: Database, clock: FakeClock) -> None:
        job = self.cancel(db, make_job(db, not_before=clock.now + 60.0))
        assert job is not None
        assert job.state == JobState.CANCELLED

    def test_running_job_is_flagged(self, db: Database) -> None:
        job = self.cancel(db, running(db))
        assert job is not None
        assert (job.state, job.is_cancel_requested) == (JobState.RUNNING, True)

    def test_finished_job_comes_back_unchanged(self, db: Database) -> None:
        job = running(db)
        settle(db, job, FAILED)
        assert read(db, job) == self.cancel(db, job)

    def test_other_tenants_job_is_unknown(self, db: Database) -> None:
        job = make_job(db)
        assert self.cancel(db, job, tenant_id=2) is None
        assert read(db, job).state == JobState.QUEUED

    def test_flagged_run_that_succeeds_all_the_same_is_a_success(self, db: Database) -> None:
        job = running(db)
        self.cancel(db, job)
        assert settle(db, job, jobs.Succeeded(result=make_result())) == JobState.SUCCEEDED

    @pytest.mark.parametrize(
        "outcome",
        [jobs.Requeued(), jobs.Delayed(not_before=0.0, code="worker_lost", message="Lost.")],
        ids=["requeued", "delayed"],
    )
    def test_flagged_run_does_not_go_on(self, db: Database, outcome: jobs.Outcome) -> None:
        job = running(db)
        self.cancel(db, job)
        assert settle(db, job, outcome) == JobState.CANCELLED

    def test_cancel_racing_completion_gives_one_outcome(self, db: Database) -> None:
        for _ in range(15):
            job = running(db)
            with ThreadPoolExecutor(3) as threads:
                cancel = threads.submit(self.cancel, db, job)
                succeed = threads.submit(settle, db, job, jobs.Succeeded(result=make_result()))
                give_up = threads.submit(settle, db, job, jobs.Cancelled())
            reached = [state for state in (succeed.result(), give_up.result()) if state]
            assert [read(db, job).state] == reached
            assert cancel.result() is not None


class TestLearntCost:
    def cost(self, db: Database) -> float | None:
        known = db.read(lambda conn: learning.durations(conn, make_spec(), "main"))
        return None if known is None else known.render_s

    def test_what_a_run_took_is_learnt(self, db: Database, clock: FakeClock) -> None:
        job = running(db)
        clock.advance(8.0)
        settle(db, job, jobs.Succeeded(result=make_result()))
        assert self.cost(db) == 8.0

    def test_failed_runs_teach_nothing(self, db: Database, clock: FakeClock) -> None:
        job = running(db)
        clock.advance(3.0)
        settle(db, job, FAILED)
        assert self.cost(db) is None

    def test_time_on_the_gpu_counts_where_it_is_known(self, db: Database, clock: FakeClock) -> None:
        job = running(db)
        clock.advance(30.0)
        timings = {"denoising": 6.0, "decoding": 1.5, "encoding": 20.0}
        settle(db, job, jobs.Succeeded(result=make_result(timings_s=timings)))
        assert self.cost(db) == 7.5


@pytest.mark.parametrize(("code", "charged_s"), [("worker_lost", 0.0), ("engine_failed", 20.0)])
def test_tenant_is_not_charged_for_a_machine_that_vanished(
    db: Database, clock: FakeClock, code: str, charged_s: float
) -> None:
    job = running(db)
    clock.advance(20.0)
    settle(db, job, jobs.Delayed(not_before=clock.now, code=code, message="Gone."))
    query = text("SELECT vtime FROM flows UNION ALL SELECT vtime FROM user_flows")
    assert db.read(lambda conn: conn.execute(query).scalars().all()) == [charged_s, charged_s]
