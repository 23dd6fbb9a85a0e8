"""Guesses from what lies ahead, and intervals from how guesses erred."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain import eta
from vidmill.domain.eta import Calibration, Group, Guess, Kind, Workforce
from vidmill.domain.job import Lane

HERE = Group(Kind.START, Lane.STANDARD, 2)
OTHER_BAND = Group(Kind.START, Lane.STANDARD, 3)
OTHER_LANE = Group(Kind.START, Lane.BATCH, 2)
OTHER_KIND = Group(Kind.REST, Lane.STANDARD, 2)


def make_guess(centre_s: float = 100.0, group: Group = HERE, grain_s: float = 1.0) -> Guess:
    return Guess(group=group, centre_s=centre_s, grain_s=grain_s)


def calibrated(**errors: list[float]) -> Calibration:
    groups = {"here": HERE, "band": OTHER_BAND, "lane": OTHER_LANE, "kind": OTHER_KIND}
    return Calibration(errors={groups[name]: values for name, values in errors.items()})


def test_nothing_measured_gives_a_wide_interval_around_the_guess() -> None:
    interval = calibrated().interval(make_guess(100.0))

    assert interval.p50 == pytest.approx(100.0)
    assert interval.p10 < 40
    assert interval.p90 > 250


def test_guesses_that_came_true_give_a_narrow_interval() -> None:
    interval = calibrated(here=[0.0] * eta.ENOUGH).interval(make_guess(100.0))

    assert (interval.p10, interval.p50, interval.p90) == pytest.approx((100, 100, 100), rel=0.02)


def test_guesses_that_were_always_half_the_truth_are_doubled() -> None:
    errors = [make_guess(100.0).error(200.0)] * eta.ENOUGH

    assert calibrated(here=errors).interval(make_guess(100.0)).p50 == pytest.approx(200.0)


def test_few_errors_are_filled_up_from_the_same_lane_then_from_other_lanes() -> None:
    few, enough = [0.0] * 5, [math.log(2.0)] * eta.ENOUGH
    guess = make_guess(100.0, grain_s=0.0)

    of_lane = calibrated(here=few, band=enough, lane=[math.log(9.0)] * 500).interval(guess)
    of_kind = calibrated(here=few, lane=enough).interval(guess)
    of_others = calibrated(kind=enough).interval(guess)

    assert of_lane.p50 == pytest.approx(200.0)
    assert of_kind.p50 == pytest.approx(200.0)
    assert of_others == calibrated().interval(guess)


def test_what_is_hours_away_is_told_less_sharply_for_what_is_known_of_it_is_hours_old() -> None:
    calibration = calibrated(here=[0.0] * eta.ENOUGH)

    hour, day = (calibration.interval(make_guess(hours * 3600.0)) for hours in (1, 24))

    assert hour.p90 / hour.p50 == pytest.approx(math.exp(eta.STALE_PER_H), rel=0.01)
    assert day.p90 / day.p50 == pytest.approx(math.exp(eta.STALE_MAX), rel=0.01)


def test_an_interval_is_worked_out_once_per_group() -> None:
    calibration = calibrated(here=[0.0] * eta.ENOUGH)

    assert calibration.interval(make_guess()) == calibration.interval(make_guess())


@given(
    st.lists(st.floats(-3, 3), min_size=eta.ENOUGH, max_size=200),
    st.floats(0, 1e5),
    st.floats(1, 9),
)
def test_the_ends_of_an_interval_are_in_order_and_never_past(
    errors: list[float], centre_s: float, grain_s: float
) -> None:
    found = calibrated(here=errors).interval(make_guess(centre_s, grain_s=grain_s))

    assert 0 <= found.p10 <= found.p50 <= found.p90


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(1, 100))
def test_an_error_leads_back_to_the_truth(centre_s: float, actual_s: float, grain_s: float) -> None:
    guess = make_guess(centre_s, grain_s=grain_s)

    assert guess.truth(guess.error(actual_s)) == pytest.approx(actual_s, rel=1e-6, abs=1e-4)


def test_idle_worker_starts_the_next_job_at_once() -> None:
    force = Workforce(busy_s=(0.0, 40.0), clip_s=60.0)

    assert eta.wait_s(force, ahead=0, ahead_cost_s=0.0) == 0.0
    assert eta.wait_s(force, ahead=1, ahead_cost_s=60.0) == 40.0


def test_one_worker_does_everything_ahead_one_by_one() -> None:
    force = Workforce(busy_s=(15.0,), clip_s=60.0)

    assert eta.wait_s(force, ahead=3, ahead_cost_s=180.0) == 195.0


def test_more_workers_shorten_the_queue() -> None:
    waits = [
        eta.wait_s(Workforce(busy_s=(30.0,) * n, clip_s=60.0), ahead=40, ahead_cost_s=2400.0)
        for n in (1, 2, 10)
    ]

    assert waits == [2430.0, 1215.0, 243.0]


def test_claims_of_a_busy_pool_are_as_far_apart_as_its_workers_allow() -> None:
    assert Workforce(busy_s=(0.0,) * 10, clip_s=60.0).grain_s == 6.0
    assert Workforce(busy_s=(0.0,) * 10, clip_s=2.0).grain_s == 1.0


def test_rest_of_a_silent_run_is_told_by_its_age() -> None:
    totals_s = (50.0, 60.0, 70.0, 100.0)

    assert eta.rest_s(totals_s, elapsed_s=0.0, progress=0.0) == 65.0
    assert eta.rest_s(totals_s, elapsed_s=65.0, progress=0.0) == 20.0
    assert eta.rest_s(totals_s, elapsed_s=200.0, progress=0.0) == 25.0


def test_rest_of_a_run_follows_its_own_pace_the_more_the_further_it_is() -> None:
    as_usual = eta.rest_s((100.0,), elapsed_s=50.0, progress=0.5)
    slow = eta.rest_s((100.0,), elapsed_s=100.0, progress=0.5)

    assert (as_usual, slow) == (50.0, 75.0)


def test_gpu_is_free_before_the_clip_is_finished() -> None:
    assert eta.busy_s(90.0, elapsed_s=30.0, progress=0.0) == 60.0
    assert eta.busy_s(90.0, elapsed_s=300.0, progress=0.0) == 0.0
    assert eta.busy_s(90.0, elapsed_s=30.0, progress=0.45) == pytest.approx(45.0)
    assert eta.busy_s(90.0, elapsed_s=30.0, progress=0.95) == 0.0


def test_guesses_of_like_waits_are_of_one_group() -> None:
    force = Workforce(busy_s=(10.0,) * 4, clip_s=100.0)
    starts = [eta.guess_start(Lane.VIP, wait, force).group.band for wait in (1, 50, 60, 500, 5000)]
    finish = eta.guess_finish(Lane.VIP, 50.0, 80.0, force)
    rest = eta.guess_rest(Lane.BATCH, 60.0, 100.0)

    assert starts == [0, 2, 2, 4, 5]
    assert (finish.group, finish.centre_s) == (Group(Kind.FINISH, Lane.VIP, 2), 130.0)
    assert (rest.group, rest.grain_s) == (Group(Kind.REST, Lane.BATCH, 2), 2.0)


def test_median_of_an_even_number_lies_between_the_two() -> None:
    assert (eta.median((1.0,)), eta.median((1.0, 4.0))) == (1.0, 2.5)
