"""How runs end, and what watchers are told."""

from dataclasses import replace

import pytest

from tests.builders import FakeClock, make_job, make_result
from tests.claims import take
from tests.recorders import RecordingBus, RecordingTickets
from vidmill.domain.errors import (
    EngineFailed,
    JobCancelled,
    ModelInvalid,
    RenderCrashed,
    TimedOut,
    VidmillError,
    WorkerLost,
)
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.services.lifecycle import Lifecycle
from vidmill.store import breakers, jobs
from vidmill.store.breakers import BreakerPolicy, BreakerState
from vidmill.store.session import Database


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


def running(db: Database, **changes: object) -> Job:
    make_job(db, **changes)
    return take(db)


def read(db: Database, job: Job) -> Job:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found


def lifecycle(
    db: Database, bus: RecordingBus, tickets: RecordingTickets | None = None
) -> Lifecycle:
    return Lifecycle(
        db=db,
        bus=bus,
        tickets=tickets or RecordingTickets(),
        retry=RetryPolicy(crash_max=2),
        breaker=BreakerPolicy(failures=2),
    )


def fail(
    db: Database, bus: RecordingBus, job: Job, error: VidmillError, *, attempt: int = 1
) -> JobState | None:
    run = replace(job, attempt=attempt)
    return lifecycle(db, bus).fail(run, error, jitter=0.5)


def test_completed_run_is_stored_and_told(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    state = lifecycle(db, bus).complete(job, make_result())
    assert state is JobState.SUCCEEDED
    assert read(db, job).result == make_result()
    event = {"attempt": 1, "state": "succeeded", "phase": "done", "progress": 1.0}
    assert bus.events == [(job.public_id, event)]


def test_zombies_clip_is_neither_stored_nor_told(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    state = lifecycle(db, bus).complete(replace(job, attempt=2), make_result())
    assert state is None
    assert (read(db, job).state, bus.events) == (JobState.RUNNING, [])


def test_transient_failure_is_tried_again_after_a_wait(
    db: Database, bus: RecordingBus, clock: FakeClock
) -> None:
    job = running(db)
    assert fail(db, bus, job, EngineFailed("The device was lost.")) is JobState.DELAYED
    after = read(db, job)
    assert after.not_before == clock.now + 10.0
    assert (after.error_code, after.error_message) == ("engine_failed", "The device was lost.")
    event = {"attempt": 1, "state": "delayed", "phase": "retry_wait", "progress": 0.0}
    assert bus.events == [(job.public_id, event)]


@pytest.mark.parametrize("error", [ModelInvalid("Damaged."), TimedOut("Too long.")])
def test_permanent_failure_is_final(db: Database, bus: RecordingBus, error: VidmillError) -> None:
    job = running(db)
    assert fail(db, bus, job, error) is JobState.FAILED
    assert (read(db, job).error_code, read(db, job).error_message) == (error.code, str(error))


def test_fourth_failure_is_final(db: Database, bus: RecordingBus, clock: FakeClock) -> None:
    states = []
    job = running(db)
    for attempt in (1, 2, 3, 4):
        states.append(fail(db, bus, job, EngineFailed("Again."), attempt=attempt))
        clock.advance(100.0)
        db.write(jobs.promote)
        db.write(
            lambda uow: jobs.claim(uow, pool="main", worker="w1", lease_s=30.0, profile="tiny")
        )
    assert states == [JobState.DELAYED] * 3 + [JobState.FAILED]


def test_cancelled_run_ends_cancelled_without_an_error(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    assert fail(db, bus, job, JobCancelled("Stopped.")) is JobState.CANCELLED
    assert read(db, job).error_code is None


def test_failure_after_a_requested_cancellation_is_not_tried_again(
    db: Database, bus: RecordingBus
) -> None:
    job = running(db)
    db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))
    assert fail(db, bus, job, EngineFailed("Torn down.")) is JobState.CANCELLED


def test_zombies_failure_changes_nothing(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    assert fail(db, bus, job, EngineFailed("Late."), attempt=3) is None
    assert (read(db, job).state, bus.events) == (JobState.RUNNING, [])


def test_failure_of_an_unknown_job_is_nobodys(db: Database, bus: RecordingBus) -> None:
    ghost = running(db)
    state = fail(db, bus, replace(ghost, id=999), EngineFailed("Late."))
    assert (state, bus.events) == (None, [])


def test_drained_run_goes_back_and_costs_no_retry(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    assert lifecycle(db, bus).release(job) is JobState.QUEUED
    after = read(db, job)
    assert after.max_attempts - after.attempt == job.max_attempts
    assert bus.events[0][1]["state"] == "queued"


def test_drained_run_wakes_another_worker(db: Database, bus: RecordingBus) -> None:
    tickets = RecordingTickets()
    lifecycle(db, bus, tickets).release(running(db))
    assert tickets.pools == ["main"]


def test_job_that_ends_its_render_process_too_often_is_poison(
    db: Database, bus: RecordingBus, clock: FakeClock
) -> None:
    job = running(db)
    assert fail(db, bus, job, RenderCrashed("Killed.")) is JobState.DELAYED
    clock.advance(100.0)
    db.write(jobs.promote)
    again = take(db)
    assert fail(db, bus, again, RenderCrashed("Killed."), attempt=2) is JobState.FAILED
    assert read(db, job).error_code == "poison_job"


def test_machines_that_vanish_make_no_poison(
    db: Database, bus: RecordingBus, clock: FakeClock
) -> None:
    job = running(db)
    fail(db, bus, job, WorkerLost("Gone."))
    clock.advance(100.0)
    db.write(jobs.promote)
    assert fail(db, bus, take(db), RenderCrashed("Killed."), attempt=2) is JobState.DELAYED


def breaker_state(db: Database) -> list[BreakerState]:
    return [breaker.state for breaker in db.read(breakers.all_breakers)]


def test_engine_that_fails_different_jobs_opens_the_breaker_and_success_closes_it(
    db: Database, bus: RecordingBus
) -> None:
    first, second, third = running(db), running(db), running(db)
    fail(db, bus, first, EngineFailed("Broken."))
    assert breaker_state(db) == [BreakerState.CLOSED]
    fail(db, bus, second, EngineFailed("Broken."))
    assert breaker_state(db) == [BreakerState.OPEN]
    lifecycle(db, bus).complete(third, make_result())
    assert breaker_state(db) == [BreakerState.CLOSED]


@pytest.mark.parametrize("error", [TimedOut("Long."), WorkerLost("Gone."), JobCancelled("Stop.")])
def test_what_is_not_the_engines_fault_is_not_counted(
    db: Database, bus: RecordingBus, error: VidmillError
) -> None:
    for _ in range(3):
        fail(db, bus, running(db), error)
    assert breaker_state(db) == []


def test_zombies_failure_is_not_the_engines(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    fail(db, bus, job, EngineFailed("Late."), attempt=3)
    assert breaker_state(db) == []


def test_followers_are_told_how_their_leader_ended(db: Database, bus: RecordingBus) -> None:
    leader = running(db, cache_key="k")
    follower = make_job(db, cache_key="k")
    lifecycle(db, bus).complete(leader, make_result())
    assert [(job, event["state"]) for job, event in bus.events] == [
        (leader.public_id, "succeeded"),
        (follower.public_id, "succeeded"),
    ]


def test_successor_of_a_cancelled_leader_is_told_and_gets_a_worker(
    db: Database, bus: RecordingBus
) -> None:
    tickets = RecordingTickets()
    leader = running(db, cache_key="k")
    follower = make_job(db, cache_key="k")
    lifecycle(db, bus, tickets).fail(leader, JobCancelled("Stop."), jitter=0.5)
    assert (read(db, follower).state, tickets.pools) == (JobState.QUEUED, ["main"])
    assert bus.events[1][0] == follower.public_id
