"""What jobs were predicted, and how far off it was."""

import pytest

from tests.builders import FakeClock, make_job, make_result
from tests.claims import settle, take
from vidmill.domain.eta import Group, Guess, Kind
from vidmill.domain.job import Job, Lane
from vidmill.store import jobs, predictions
from vidmill.store.session import Database

START = Group(Kind.START, Lane.STANDARD, 2)
FINISH = Group(Kind.FINISH, Lane.STANDARD, 2)


def tell(db: Database, job: Job, group: Group, centre_s: float) -> None:
    guess = Guess(group=group, centre_s=centre_s, grain_s=1.0)
    db.write(lambda uow: predictions.tell(uow, job, guess, late_s=2 * centre_s))


def errors(db: Database) -> dict[Group, list[float]]:
    found = db.read(lambda conn: predictions.errors(conn, "main", now=db.now()))
    return {group: list(values) for group, values in found.items()}


def open_counts(db: Database) -> dict[tuple[Lane, Kind], int]:
    return db.read(lambda conn: predictions.open_counts(conn, "main"))


def test_start_and_finish_are_judged_when_they_happen(db: Database, clock: FakeClock) -> None:
    job = make_job(db)
    tell(db, job, START, 10.0)
    tell(db, job, FINISH, 30.0)
    assert db.write(predictions.judge) == 0
    clock.advance(10)
    run = take(db)
    clock.advance(1)

    assert db.write(predictions.judge) == 1
    assert errors(db) == {START: [pytest.approx(0.0)]}
    assert open_counts(db) == {(Lane.STANDARD, Kind.FINISH): 1}

    clock.advance(18)
    settle(db, run, jobs.Succeeded(result=make_result()))
    clock.advance(100)

    assert db.write(predictions.judge) == 1
    late = Guess(group=FINISH, centre_s=30.0, grain_s=1.0).error(29.0)
    assert errors(db) == {START: [pytest.approx(0.0)], FINISH: [pytest.approx(late)]}
    assert open_counts(db) == {}


def test_overdue_prediction_counts_before_the_truth_is_known(
    db: Database, clock: FakeClock
) -> None:
    tell(db, make_job(db), START, 10.0)
    clock.advance(20)
    assert errors(db) == {}

    clock.advance(1)

    assert errors(db) == {
        START: [pytest.approx(Guess(group=START, centre_s=10, grain_s=1).error(21))]
    }


def test_first_prediction_of_a_job_stays_until_it_is_judged(db: Database, clock: FakeClock) -> None:
    job = make_job(db)
    tell(db, job, START, 10.0)
    tell(db, job, START, 99.0)
    clock.advance(10)
    take(db)
    db.write(predictions.judge)

    assert errors(db) == {START: [pytest.approx(0.0)]}


def test_nothing_is_learnt_of_a_job_that_was_cancelled_or_erased(db: Database) -> None:
    for _ in range(2):
        job = make_job(db)
        tell(db, job, START, 10.0)
        tell(db, job, FINISH, 10.0)
        db.write(lambda uow, job=job: jobs.request_cancel(uow, job.public_id, 1))  # type: ignore[misc]
    db.write(lambda uow: jobs.erase(uow, job.id))

    assert db.write(predictions.judge) == 0
    assert open_counts(db) == {}


def test_a_prediction_is_given_up_after_a_day(db: Database, clock: FakeClock) -> None:
    tell(db, make_job(db), START, 10.0)
    clock.advance(predictions.GIVEN_UP_S + 1)

    assert db.write(predictions.judge) == 0
    assert open_counts(db) == {}


def test_start_of_a_retry_is_that_of_the_next_run(db: Database, clock: FakeClock) -> None:
    make_job(db)
    run = take(db)
    settle(db, run, jobs.Delayed(not_before=clock.now + 5, code="worker_lost", message="gone"))
    tell(db, run, START, 10.0)
    assert db.write(predictions.judge) == 0

    clock.advance(10)
    db.write(jobs.promote)
    take(db)

    assert db.write(predictions.judge) == 1
    assert errors(db) == {START: [pytest.approx(0.0)]}


def test_only_the_latest_errors_of_a_group_are_kept(db: Database, clock: FakeClock) -> None:
    for _ in range(predictions.KEPT + 2):
        tell(db, make_job(db), START, 10.0)
        take(db)
        db.write(predictions.judge)
        clock.advance(1)

    assert len(errors(db)[START]) == predictions.KEPT
