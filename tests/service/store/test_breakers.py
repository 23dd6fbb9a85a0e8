"""The circuit breaker in the claim: a pool rests, one job tries, the pool works again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders import FakeClock, make_job
from tests.claims import claim, claim_some, settle, succeed
from tests.databases import Choice
from vidmill.domain.job import Job, JobState
from vidmill.store import breakers, jobs
from vidmill.store.breakers import Breaker, BreakerPolicy, BreakerState
from vidmill.store.session import Database, open_database

POLICY = BreakerPolicy(failures=3, rest_s=30.0, rest_cap_s=100.0)


def fail(db: Database, job: Job) -> None:
    """End a run as the engine's fault, as `services.lifecycle` does."""
    settle(db, job, jobs.Failed(code="engine_failed", message="no memory"))
    db.write(
        lambda uow: breakers.record_failure(
            uow, pool=job.pool, profile="tiny", job_id=job.id, reason="no memory", policy=POLICY
        )
    )


def breaker(db: Database) -> Breaker:
    (found,) = db.read(breakers.all_breakers)
    return found


@pytest.fixture
def resting(db: Database) -> Database:
    """A pool whose breaker just opened, with ten jobs queued."""
    for _ in range(13):
        make_job(db)
    for _ in range(3):
        fail(db, claim_some(db))
    return db


def test_pool_rests_after_enough_failures(resting: Database, clock: FakeClock) -> None:
    assert claim(resting) is None
    found = breaker(resting)
    assert (found.state, found.reason) == (BreakerState.OPEN, "no memory")
    assert clock.now + 30.0 == found.retry_at


def test_other_pools_and_other_models_go_on(resting: Database) -> None:
    make_job(resting, pool="other")
    assert claim(resting, pool="other") is not None
    other = resting.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w", profile="large", lease_s=30.0)
    )
    assert other is not None


def test_success_between_forgets_the_failures(db: Database) -> None:
    for _ in range(5):
        make_job(db)
    for _ in range(2):
        fail(db, claim_some(db))
    db.write(lambda uow: breakers.record_success(uow, pool="main", profile="tiny"))
    fail(db, claim_some(db))
    assert claim(db) is not None


def test_no_row_is_written_while_nothing_fails(db: Database) -> None:
    make_job(db)
    succeed(db, claim_some(db))
    db.write(lambda uow: breakers.record_success(uow, pool="main", profile="tiny"))
    assert db.read(breakers.all_breakers) == []


def test_exactly_one_of_many_claimers_gets_the_probe(
    resting: Database, clock: FakeClock, tmp_path: Path
) -> None:
    clock.advance(30.0)
    url = Choice.in_use.get(tmp_path) or f"sqlite:///{tmp_path / 'vidmill.db'}"
    other = open_database(url, clock=clock)
    with ThreadPoolExecutor(8) as threads:
        dbs = [(resting, other)[n % 2] for n in range(24)]
        found = list(threads.map(lambda n: claim(dbs[n], worker=f"w{n}"), range(24)))
    other.close()
    (probe,) = [job for job in found if job is not None]
    assert breaker(resting).state is BreakerState.HALF_OPEN
    assert breaker(resting).probe_job_id == probe.id


def test_successful_probe_opens_the_pool_to_all(resting: Database, clock: FakeClock) -> None:
    clock.advance(30.0)
    succeed(resting, claim_some(resting))
    resting.write(lambda uow: breakers.record_success(uow, pool="main", profile="tiny"))
    assert breaker(resting) == Breaker(pool="main", profile="tiny")
    assert [claim(resting) is not None for _ in range(3)] == [True] * 3


def test_failed_probe_doubles_the_rest(resting: Database, clock: FakeClock) -> None:
    clock.advance(30.0)
    fail(resting, claim_some(resting))
    clock.advance(59.0)
    assert claim(resting) is None
    clock.advance(1.0)
    assert claim(resting) is not None
    assert claim(resting) is None


@pytest.mark.parametrize(
    "outcome",
    [
        jobs.Requeued(),
        jobs.Cancelled(),
        jobs.Delayed(not_before=0.0, code="worker_lost", message=""),
    ],
)
def test_probe_that_ended_without_a_verdict_lets_another_go(
    resting: Database, clock: FakeClock, outcome: jobs.Outcome
) -> None:
    clock.advance(30.0)
    settle(resting, claim_some(resting), outcome)
    again = claim_some(resting)
    assert again.state is JobState.RUNNING
    assert claim(resting) is None


def test_rest_that_is_over_with_nothing_queued_stays_ready_for_a_probe(
    db: Database, clock: FakeClock
) -> None:
    for _ in range(3):
        make_job(db)
        fail(db, claim_some(db))
    clock.advance(30.0)
    assert claim(db) is None
    make_job(db)
    make_job(db)
    assert [claim(db) is not None for _ in range(2)] == [True, False]
