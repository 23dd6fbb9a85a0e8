"""Prices are whole credits, rounded up from the order as it was written."""

import pytest

from vidmill.domain.clip import Resolution
from vidmill.domain.pricing import Tariff, cached_price

TARIFF = Tariff(credits_per_s={Resolution.P480: 10, Resolution.P720: 25})


@pytest.mark.parametrize(
    ("resolution", "duration_s", "price"),
    [
        (Resolution.P480, 3.0, 30),
        (Resolution.P720, 3.0, 75),
        (Resolution.P720, 2.5, 63),
        (Resolution.P480, 2.3, 23),
        (Resolution.P480, 2.31, 24),
    ],
)
def test_price_is_seconds_by_tariff_rounded_up(
    resolution: Resolution, duration_s: float, price: int
) -> None:
    assert TARIFF.price_credits(resolution, duration_s) == price


@pytest.mark.parametrize(("percent", "price"), [(0, 0), (1, 1), (50, 13), (100, 25)])
def test_price_of_what_was_there_is_a_share_rounded_up(percent: int, price: int) -> None:
    assert cached_price(25, percent) == price
