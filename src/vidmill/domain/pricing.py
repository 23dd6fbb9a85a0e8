"""What a clip costs its owner, in whole credits."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from vidmill.domain.clip import Resolution


@dataclass(frozen=True, kw_only=True)
class Tariff:
    """Credits by delivered second; so the price follows from the order alone."""

    credits_per_s: Mapping[Resolution, int]

    def price_credits(self, resolution: Resolution, duration_s: float) -> int:
        """Return the price of a clip; a part of a credit counts whole."""
        # `str` first: 2.3 s are 23/10, not the double next to it, which may lie a credit above.
        return _ceil(Fraction(str(duration_s)) * self.credits_per_s[resolution])


def cached_price(price_credits: int, percent: int) -> int:
    """Return what a clip costs that was there already, *percent* (0..100) of its price."""
    return _ceil(Fraction(price_credits * percent, 100))


def _ceil(amount: Fraction) -> int:
    return -(-amount.numerator // amount.denominator)
