"""What follows from a receiver's reply."""

import base64

import pytest

from vidmill.domain.webhook import (
    ATTEMPTS_MAX,
    DELAYS_S,
    RETRY_AFTER_MAX_S,
    DeliveryState,
    Reply,
    Verdict,
    judge,
    secret_text,
)

MIDDLE = 0.5
"""The jitter that changes nothing."""


def replied(status: int | None, *, error: str | None = None, retry: float | None = None) -> Reply:
    return Reply(took_s=0.1, status=status, error=error, retry_after_s=retry)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_delivered(status: int) -> None:
    assert judge(replied(status), tries=1, jitter=0) == Verdict(state=DeliveryState.DELIVERED)


@pytest.mark.parametrize("status", [199, 301, 307, 400, 401, 404, 500])
def test_any_other_answer_is_tried_again_in_five_seconds(status: int) -> None:
    expected = Verdict(state=DeliveryState.PENDING, delay_s=5)
    assert judge(replied(status), tries=1, jitter=MIDDLE) == expected


def test_2xx_whose_answer_never_ended_is_no_success() -> None:
    late = replied(None, error="no whole answer within 15 s")
    assert judge(late, tries=1, jitter=MIDDLE).state is DeliveryState.PENDING


def test_delays_grow_to_a_day_and_then_it_is_given_up() -> None:
    failed = replied(500)
    delays = [judge(failed, tries=n, jitter=MIDDLE).delay_s for n in range(1, ATTEMPTS_MAX)]
    assert delays == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert judge(failed, tries=ATTEMPTS_MAX, jitter=MIDDLE) == Verdict(state=DeliveryState.DEAD)


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.9), (1.0, 1.1)])
def test_delays_vary_by_a_tenth_each_way(jitter: float, share: float) -> None:
    assert judge(replied(500), tries=2, jitter=jitter).delay_s == pytest.approx(DELAYS_S[1] * share)


def test_gone_is_final_and_says_so_of_the_endpoint() -> None:
    expected = Verdict(state=DeliveryState.DEAD, is_gone=True)
    assert judge(replied(410), tries=1, jitter=MIDDLE) == expected


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_busy_endpoint_rests_as_long_as_it_says(status: int) -> None:
    expected = Verdict(state=DeliveryState.PENDING, delay_s=60, rest_s=60)
    assert judge(replied(status, retry=60), tries=1, jitter=MIDDLE) == expected


def test_busy_endpoint_that_says_nothing_rests_a_little() -> None:
    expected = Verdict(state=DeliveryState.PENDING, delay_s=300, rest_s=5)
    assert judge(replied(503), tries=2, jitter=MIDDLE) == expected


def test_no_endpoint_is_obeyed_for_longer_than_a_day() -> None:
    verdict = judge(replied(429, retry=1e9), tries=1, jitter=MIDDLE)
    assert (verdict.delay_s, verdict.rest_s) == (RETRY_AFTER_MAX_S, RETRY_AFTER_MAX_S)


def test_retry_after_of_an_endpoint_that_is_not_busy_is_no_business_of_ours() -> None:
    assert judge(replied(400, retry=60), tries=1, jitter=MIDDLE).delay_s == 5


def test_secret_is_shown_as_standard_webhooks_wants_it() -> None:
    key = bytes(range(32))
    assert secret_text(key) == "whsec_" + base64.b64encode(key).decode()
