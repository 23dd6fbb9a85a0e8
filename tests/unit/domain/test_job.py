"""The state machine, retries and progress."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_spec
from vidmill.domain.errors import WORK_ERRORS, EngineFailed, JobCancelled, TimedOut, WorkerLost
from vidmill.domain.job import (
    MAX_ATTEMPTS,
    PHASE_SPAN,
    TERMINAL,
    TRANSITIONS,
    WIRE,
    Decision,
    Job,
    JobState,
    Lane,
    Phase,
    RetryPolicy,
    WireStatus,
    decide,
    overall_progress,
)

POLICY = RetryPolicy()
states = st.sampled_from(JobState)


def make_job(state: JobState = JobState.QUEUED) -> Job:
    return Job(
        id=1,
        public_id="t2v_0",
        tenant_id=1,
        pool="main",
        lane=Lane.STANDARD,
        state=state,
        attempt=0,
        max_attempts=MAX_ATTEMPTS,
        spec=make_spec(),
        request={},
        est_cost_s=10.0,
        submitted_at=0.0,
    )


def test_terminal_states_are_the_three_that_callers_know() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == TERMINAL


@given(states, states)
def test_nothing_leaves_a_terminal_state(old: JobState, new: JobState) -> None:
    assert not (old in TERMINAL and new in TRANSITIONS[old])


@given(st.lists(states, max_size=30))
def test_every_walk_over_allowed_moves_ends_in_a_terminal_state_at_most_once(
    wishes: list[JobState],
) -> None:
    visited = [JobState.QUEUED]
    for wish in wishes:
        if wish in TRANSITIONS[visited[-1]]:
            visited.append(wish)
    assert not TERMINAL.intersection(visited[:-1])


@given(states)
def test_every_live_state_can_still_end(state: JobState) -> None:
    reached, frontier = {state}, {state}
    while frontier:
        frontier = {new for old in frontier for new in TRANSITIONS[old]} - reached
        reached |= frontier
    assert reached & TERMINAL


def test_only_a_claim_makes_a_job_run() -> None:
    assert [old for old in JobState if JobState.RUNNING in TRANSITIONS[old]] == [JobState.QUEUED]


@pytest.mark.parametrize("state", JobState)
def test_state_is_terminal_exactly_when_its_wire_status_is_final(state: JobState) -> None:
    final = {WireStatus.COMPLETED, WireStatus.FAILED, WireStatus.CANCELLED}
    assert make_job(state).is_terminal == (make_job(state).status in final)


def test_every_state_has_a_wire_status() -> None:
    assert set(WIRE) == set(JobState)


def test_delayed_and_review_show_as_processing() -> None:
    assert {WIRE[JobState.DELAYED], WIRE[JobState.REVIEW]} == {WireStatus.PROCESSING}


class TestDecide:
    def test_transient_error_is_tried_again_after_a_wait(self) -> None:
        decision = decide(
            WorkerLost(), attempt=1, max_attempts=MAX_ATTEMPTS, policy=POLICY, jitter=0.5
        )
        assert decision == Decision(state=JobState.DELAYED, delay_s=10.0)

    def test_three_retries_and_no_more(self) -> None:
        outcomes = [
            decide(
                EngineFailed(), attempt=n, max_attempts=MAX_ATTEMPTS, policy=POLICY, jitter=0.5
            ).state
            for n in range(1, 6)
        ]
        assert outcomes == [JobState.DELAYED] * 3 + [JobState.FAILED] * 2

    def test_time_out_is_not_tried_again(self) -> None:
        decision = decide(TimedOut(), attempt=1, max_attempts=4, policy=POLICY, jitter=0.5)
        assert decision == Decision(state=JobState.FAILED)

    def test_cancelled_is_never_tried_again_nor_failed(self) -> None:
        decision = decide(JobCancelled(), attempt=1, max_attempts=4, policy=POLICY, jitter=0.5)
        assert decision == Decision(state=JobState.CANCELLED)

    @given(
        st.sampled_from(sorted(WORK_ERRORS)),
        st.integers(1, 9),
        st.integers(1, 9),
        st.floats(0.0, 1.0),
    )
    def test_every_decision_is_an_allowed_move_of_a_running_job(
        self, code: str, attempt: int, max_attempts: int, jitter: float
    ) -> None:
        error = WORK_ERRORS[code]("x")
        decision = decide(
            error, attempt=attempt, max_attempts=max_attempts, policy=POLICY, jitter=jitter
        )
        assert decision.state in TRANSITIONS[JobState.RUNNING]
        assert (decision.delay_s > 0) == (decision.state is JobState.DELAYED)
        if decision.state is JobState.DELAYED:
            assert error.is_retryable
            assert attempt < max_attempts


class TestRetryPolicy:
    def test_delay_doubles_from_ten_seconds(self) -> None:
        assert [POLICY.delay_s(n, 0.5) for n in (1, 2, 3)] == [10.0, 20.0, 40.0]

    @given(st.integers(1, 200), st.floats(0.0, 1.0))
    def test_delay_stays_within_half_and_one_and_a_half_and_the_cap(
        self, attempt: int, jitter: float
    ) -> None:
        plain = min(600.0, 10.0 * 2.0 ** min(attempt - 1, 50))
        delay = POLICY.delay_s(attempt, jitter)
        assert plain * 0.5 <= delay <= min(600.0, plain * 1.5)

    def test_jitter_spreads_retries(self) -> None:
        assert POLICY.delay_s(1, 0.0) < POLICY.delay_s(1, 1.0)


class TestProgress:
    def test_phases_cover_the_way_without_gap_or_overlap(self) -> None:
        spans = list(PHASE_SPAN.values())
        assert spans[0][0] == 0.0
        assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
        assert spans[-1][1] < 1.0

    @given(
        st.lists(
            st.tuples(st.sampled_from(list(PHASE_SPAN)), st.integers(0, 40), st.integers(1, 40)),
            min_size=2,
        )
    )
    def test_progress_never_falls_on_the_way(self, steps: list[tuple[Phase, int, int]]) -> None:
        order = list(PHASE_SPAN)
        on_the_way = sorted(steps, key=lambda step: (order.index(step[0]), step[1] / step[2]))
        shown = [overall_progress(*step) for step in on_the_way]
        assert shown == sorted(shown)
        assert all(0.0 <= share < 1.0 for share in shown)

    def test_every_denoising_step_moves_it(self) -> None:
        shown = [overall_progress(Phase.DENOISING, done, 40) for done in range(41)]
        assert len(set(shown)) == 41

    def test_phase_without_units_stands_at_its_start(self) -> None:
        assert overall_progress(Phase.DENOISING, 0, 0) == PHASE_SPAN[Phase.DENOISING][0]


@pytest.mark.parametrize(
    ("attempt", "status"), [(0, WireStatus.QUEUED), (1, WireStatus.PROCESSING)]
)
def test_a_paused_job_looks_as_it_did_when_it_waited(attempt: int, status: WireStatus) -> None:
    job = replace(make_job(JobState.DELAYED), phase=Phase.PAUSED, attempt=attempt)

    assert (job.is_paused, job.status) == (True, status)
