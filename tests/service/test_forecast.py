"""What lies before a task: its place, and when it is begun and done."""

import pytest

from tests.builders import FakeClock, make_job, make_spec
from tests.claims import take
from vidmill.domain.breaker import BreakerPolicy
from vidmill.domain.job import Job, JobState, Phase
from vidmill.profiles import load_profile
from vidmill.services.forecast import NOTHING_AHEAD, Forecast, Outlook
from vidmill.store import breakers, jobs, learning, workers
from vidmill.store.session import Database
from vidmill.store.workers import WorkerState


@pytest.fixture
def forecast(db: Database, clock: FakeClock) -> Forecast:
    return Forecast(db, profile=load_profile("tiny"), pool="main", clock=clock)


def learn(db: Database, *totals_s: float, pool: str = "main") -> None:
    for total_s in totals_s:
        db.write(
            lambda uow, total_s=total_s: learning.learn(  # type: ignore[misc]
                uow, pool=pool, spec=make_spec(), gpu_s=total_s, total_s=total_s
            )
        )


def register(db: Database, name: str, **more: object) -> None:
    known = {"worker": name, "pool": "main", "host": "h", "pid": 1, "profile": "tiny", **more}
    db.write(lambda uow: workers.register(uow, **known, lease_s=30.0))  # type: ignore[arg-type]
    db.write(lambda uow: workers.renew(uow, worker=name, lease_s=30.0, state=WorkerState.READY))


def finish_s(forecast: Forecast, job: Job, progress: float = 0.0) -> float:
    finish = forecast.outlook(job, progress).eta
    assert finish is not None
    assert finish.p10 <= finish.p50 <= finish.p90
    return finish.p50


def test_no_eta_is_invented_before_anything_was_measured(forecast: Forecast, db: Database) -> None:
    waiting, running = make_job(db), take(db)

    assert forecast.outlook(waiting, 0.0).finish is None
    assert forecast.outlook(waiting, 0.0).position is not None
    assert forecast.outlook(running, 0.5).finish is None


def test_nothing_lies_before_a_task_that_is_over(forecast: Forecast, db: Database) -> None:
    job = make_job(db)
    cancelled = db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))

    assert cancelled is not None
    assert forecast.outlook(cancelled.job, 0.0) == NOTHING_AHEAD


def test_a_pool_that_rests_after_failures_promises_nothing(
    forecast: Forecast, db: Database
) -> None:
    learn(db, 10.0)
    job = make_job(db)
    policy = BreakerPolicy(failures=1, rest_s=30.0, rest_cap_s=600.0)
    db.write(
        lambda uow: breakers.record_failure(
            uow, pool="main", profile="tiny", job_id=99, reason="out of memory", policy=policy
        )
    )

    assert forecast.outlook(job, 0.0) == Outlook(position=0)


def test_a_job_that_follows_another_is_told_nothing_of_its_own(
    forecast: Forecast, db: Database
) -> None:
    learn(db, 10.0)
    make_job(db, cache_key="twin")
    follower = make_job(db, cache_key="twin")
    assert follower.state is JobState.FOLLOWING

    assert forecast.outlook(follower, 0.0) == NOTHING_AHEAD


def test_an_eta_counts_the_queue_and_the_clip_itself(forecast: Forecast, db: Database) -> None:
    learn(db, 10.0)
    waiting = [make_job(db, est_cost_s=10.0) for _ in range(3)]

    starts = [forecast.outlook(job, 0.0).start for job in waiting]

    assert [start.p50 for start in starts if start] == [0.0, 10.0, 20.0]
    assert [finish_s(forecast, job) for job in waiting] == [10.0, 20.0, 30.0]


def test_workers_of_the_pool_and_of_its_routes_shorten_the_queue(
    forecast: Forecast, db: Database
) -> None:
    learn(db, 10.0)
    register(db, "own")
    register(db, "guest", pool="elsewhere", worker_class="both", pools=["elsewhere", "main"])
    register(db, "stranger", pool="elsewhere", worker_class="", pools=["elsewhere"])
    make_job(db, pool="elsewhere")
    db.write(
        lambda uow: jobs.claim(
            uow, pool="elsewhere", worker="stranger", profile="tiny", lease_s=30.0
        )
    )
    waiting = [make_job(db, est_cost_s=10.0) for _ in range(4)]

    assert finish_s(forecast, waiting[1]) == 10.0
    assert 15.0 <= finish_s(forecast, waiting[3]) <= 25.0


def test_a_busy_worker_is_free_when_its_clip_leaves_the_gpu(
    forecast: Forecast, db: Database, clock: FakeClock
) -> None:
    learn(db, 10.0)
    register(db, "w1")
    make_job(db, est_cost_s=10.0)
    take(db, "w1")
    waiting = make_job(db, est_cost_s=10.0)
    clock.advance(4)

    assert finish_s(forecast, waiting) == 16.0


def test_a_clip_being_finished_keeps_no_gpu(forecast: Forecast, db: Database) -> None:
    learn(db, 10.0)
    register(db, "w1")
    make_job(db, est_cost_s=10.0)
    run = take(db, "w1")
    stored = jobs.Progress(run.id, run.attempt, Phase.STORING, 0.98)
    db.write(lambda uow: jobs.heartbeat(uow, worker="w1", lease_s=30.0, progress=[stored]))

    assert finish_s(forecast, make_job(db, est_cost_s=10.0)) == 10.0


def test_an_eta_shrinks_as_the_clip_proceeds(
    forecast: Forecast, db: Database, clock: FakeClock
) -> None:
    learn(db, 10.0)
    make_job(db)
    run = take(db)
    clock.advance(5)

    assert finish_s(forecast, run) == 5.0
    assert finish_s(forecast, run, 0.5) == 5.0
    assert forecast.outlook(run, 0.5).start is None
    assert forecast.outlook(run, 0.5).position is None


def test_a_retry_waits_for_its_moment(forecast: Forecast, db: Database, clock: FakeClock) -> None:
    learn(db, 10.0)
    make_job(db)
    run = take(db)
    later = jobs.Delayed(not_before=clock.now + 100, code="worker_lost", message="gone")
    db.write(
        lambda uow: jobs.settle(uow, job_id=run.id, attempt=run.attempt, worker="w1", outcome=later)
    )
    job = db.read(lambda conn: jobs.get_by_id(conn, run.id))
    assert job is not None

    outlook = forecast.outlook(job, 0.0)

    assert outlook.position is None
    assert outlook.start is not None
    assert outlook.start.p50 == 100.0
    assert finish_s(forecast, job) == 110.0


def test_pools_are_forecast_apart(forecast: Forecast, db: Database) -> None:
    learn(db, 10.0)
    learn(db, 70.0, pool="slow")
    job, other = make_job(db), make_job(db, pool="slow")

    assert (finish_s(forecast, job), finish_s(forecast, other)) == (10.0, 70.0)
    assert forecast.cost_s(job.spec) == 10.0
    assert forecast.cost_s(job.spec, "slow") == 70.0


def test_polls_read_the_queue_once_a_second(
    forecast: Forecast, db: Database, clock: FakeClock
) -> None:
    learn(db, 10.0)
    first, second = make_job(db), make_job(db)
    assert forecast.outlook(second, 0.0).position == 1
    take(db)

    assert forecast.outlook(second, 0.0).position == 1
    clock.advance(1.1)
    assert forecast.outlook(second, 0.0).position == 0
    assert first.id < second.id
