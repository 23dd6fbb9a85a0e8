"""How runs end, and what watchers are told."""

from typing import Any

import pytest

from tests.builders import FakeClock, make_job, make_result
from tests.recorders import RecordingBus
from vidmill.domain.errors import (
    EngineFailed,
    JobCancelled,
    ModelInvalid,
    TimedOut,
    VidmillError,
)
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.services import lifecycle
from vidmill.store import jobs
from vidmill.store.session import Database


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


def running(db: Database, **changes: object) -> Job:
    make_job(db, **changes)
    job = db.write(lambda uow: jobs.claim(uow, pool="main", worker="w1", lease_s=30.0))
    assert job is not None
    return job


def read(db: Database, job: Job) -> Job:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found


def fence(job: Job, *, attempt: int = 1) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "public_id": job.public_id,
        "attempt": attempt,
        "worker": "w1",
    }


def fail(
    db: Database, bus: RecordingBus, job: Job, error: VidmillError, *, attempt: int = 1
) -> JobState | None:
    return lifecycle.fail(
        db, bus, **fence(job, attempt=attempt), error=error, policy=RetryPolicy(), jitter=0.5
    )


def test_completed_run_is_stored_and_told(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    state = lifecycle.complete(db, bus, **fence(job), result=make_result())
    assert state is JobState.SUCCEEDED
    assert read(db, job).result == make_result()
    event = {"attempt": 1, "state": "succeeded", "phase": "done", "progress": 1.0}
    assert bus.events == [(job.public_id, event)]


def test_zombies_clip_is_neither_stored_nor_told(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    state = lifecycle.complete(db, bus, **fence(job, attempt=2), result=make_result())
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
        db.write(lambda uow: jobs.claim(uow, pool="main", worker="w1", lease_s=30.0))
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
    state = lifecycle.fail(
        db,
        bus,
        job_id=999,
        public_id=ghost.public_id,
        attempt=1,
        worker="w1",
        error=EngineFailed("Late."),
        policy=RetryPolicy(),
        jitter=0.5,
    )
    assert (state, bus.events) == (None, [])


def test_drained_run_goes_back_and_costs_no_retry(db: Database, bus: RecordingBus) -> None:
    job = running(db)
    assert lifecycle.release(db, bus, **fence(job)) is JobState.QUEUED
    after = read(db, job)
    assert after.max_attempts - after.attempt == job.max_attempts
    assert bus.events[0][1]["state"] == "queued"
