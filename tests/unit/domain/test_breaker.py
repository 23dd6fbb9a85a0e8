"""The circuit breaker's rules, without a database."""

import pytest

from vidmill.domain.breaker import Breaker, BreakerPolicy, BreakerState, may_claim

POLICY = BreakerPolicy(failures=3, rest_s=30.0, rest_cap_s=100.0)
CLOSED = Breaker(pool="main", profile="tiny")


def failed(breaker: Breaker, *job_ids: int, now: float = 0.0) -> Breaker:
    for job_id in job_ids:
        breaker = breaker.after_failure(job_id, reason="no memory", now=now, policy=POLICY)
    return breaker


def half_open(*, rest_s: float) -> Breaker:
    return Breaker(
        pool="main",
        profile="tiny",
        state=BreakerState.HALF_OPEN,
        failed_jobs=(1, 2, 3),
        rest_s=rest_s,
        retry_at=0.0,
        probe_job_id=9,
    )


def test_enough_different_jobs_open_it() -> None:
    breaker = failed(CLOSED, 1, 2, 3, now=50.0)
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "no memory")
    assert (breaker.opened_at, breaker.retry_at, breaker.rest_s) == (50.0, 80.0, 30.0)


def test_same_jobs_failing_again_and_again_do_not() -> None:
    breaker = failed(CLOSED, 1, 2, 1, 2, 2, 1)
    assert (breaker.state, breaker.failed_jobs) == (BreakerState.CLOSED, (1, 2))


def test_runs_begun_before_it_opened_change_nothing() -> None:
    breaker = failed(CLOSED, 1, 2, 3)
    assert failed(breaker, 4, 5, now=20.0) == breaker


@pytest.mark.parametrize(("rest_s", "next_s"), [(30.0, 60.0), (60.0, 100.0), (100.0, 100.0)])
def test_failed_probe_doubles_the_rest_up_to_the_cap(rest_s: float, next_s: float) -> None:
    breaker = failed(half_open(rest_s=rest_s), 9, now=7.0)
    assert (breaker.state, breaker.probe_job_id) == (BreakerState.OPEN, None)
    assert (breaker.rest_s, breaker.retry_at) == (next_s, 7.0 + next_s)


def test_failure_of_another_job_is_no_verdict_on_the_probe() -> None:
    breaker = half_open(rest_s=30.0)
    assert failed(breaker, 4) == breaker


@pytest.mark.parametrize(
    ("state", "retry_at", "is_probing", "may"),
    [
        (BreakerState.CLOSED, None, False, True),
        (BreakerState.OPEN, 101.0, False, False),
        (BreakerState.OPEN, 100.0, False, True),
        (BreakerState.HALF_OPEN, 90.0, True, False),
        (BreakerState.HALF_OPEN, 90.0, False, True),
    ],
)
def test_who_may_claim(
    state: BreakerState,
    retry_at: float | None,
    is_probing: bool,  # noqa: FBT001  a column of the table above
    may: bool,  # noqa: FBT001
) -> None:
    assert may_claim(state, retry_at=retry_at, is_probing=is_probing, now=100.0) == may
