"""How long until: a guess from what lies ahead, and an interval from how such guesses erred lately.

The guess is arithmetic on the queue as it is now. It knows nothing of jobs yet to come, of failures
or of workers that join and leave; the interval does, because its ends are quantiles of the errors
that guesses of the same kind had (split conformal prediction over a sliding window: Vovk et al.
2005; Gibbs and Candès 2021 on why a window follows a drift). So nothing is assumed about how
durations are distributed.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from vidmill.domain.job import Lane

TAIL = 0.03
"""Share of the truths that may lie on either side of an interval. Its ends are called p10 and p90
and promise as much; the rest of the way is for errors that changed since they were measured: in a
simulated day of overload 0.05 gave 84 %, 0.03 gives 93 %."""

ENOUGH = 40
"""Errors from which a group speaks for itself: the outermost ones are the ends of its interval."""

UNKNOWN = tuple(math.log(3.0) * (number - 20) / 20 for number in range(41))
"""The errors assumed before any was measured: from a third of the guess to three times it."""

STALE_PER_H = 0.7
STALE_MAX = 1.1
"""By how much the ends of an interval move apart (in logarithms) for every hour foreseen, at most
threefold. What is known of waits of hours is hours old: of a peak's rise when its fall begins. In
simulated days the truth lay inside for 64 % of such waits without it, for over 90 % with it."""

WAIT_BANDS = (0.02, 0.25, 1.0, 4.0, 16.0)
"""Where waits are told apart, in clips: a wait of seconds errs otherwise than one of hours."""

REST_BANDS = (0.25, 0.5, 0.75)
"""Where running clips are told apart, in shares still to do."""

PACE_FROM = 0.05
"""Progress from which a run's own pace says something."""

RENDERED = 0.9
"""Progress at which the GPU is done with a clip (`domain.job.PHASE_SPAN`)."""


class Kind(StrEnum):
    """What is guessed."""

    START = "start"
    FINISH = "finish"  # of a job that waits
    REST = "rest"  # the finish of a job that runs


class Group(NamedTuple):
    """Guesses that err alike."""

    kind: Kind
    lane: Lane
    band: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Seconds from now. The truth lies between p10 and p90 at least eight times in ten."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Seconds until something happens, as far as the queue tells.

    Attributes:
        grain_s: What errors of short guesses are measured against: one second too late is nothing,
            even where none was foreseen.
    """

    group: Group
    centre_s: float
    grain_s: float

    def error(self, actual_s: float) -> float:
        """Return how far off it was: the logarithm of truth over guess."""
        return math.log((max(0.0, actual_s) + self.grain_s) / (self.centre_s + self.grain_s))

    def truth(self, error: float) -> float:
        """Return the seconds for which it would have been off by *error*."""
        return max(0.0, (self.centre_s + self.grain_s) * math.exp(error) - self.grain_s)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The latest errors of a pool's guesses."""

    errors: Mapping[Group, Sequence[float]]
    _known: dict[Group, Sequence[float]] = field(default_factory=dict, init=False)

    def interval(self, guess: Guess) -> Interval:
        errors = self._sorted(guess.group)
        stale = min(STALE_MAX, STALE_PER_H * guess.centre_s / 3600)
        return Interval(
            p10=guess.truth(_quantile(errors, TAIL) - stale),
            p50=guess.truth(_quantile(errors, 0.5)),
            p90=guess.truth(_quantile(errors, 1 - TAIL) + stale),
        )

    def _sorted(self, group: Group) -> Sequence[float]:
        """Return the errors of *group*, or what comes nearest to them while they are few."""
        known = self._known.get(group)
        if known is None:
            errors = list(self.errors.get(group, ()))
            for wider in (self._by_lane, self._by_kind):
                if len(errors) < ENOUGH:
                    errors = [*errors, *wider(group)]
            known = self._known[group] = sorted(errors if len(errors) >= ENOUGH else UNKNOWN)
        return known

    def _by_lane(self, group: Group) -> list[float]:
        near = [key for key in self.errors if key[:2] == group[:2] and key != group]
        return [error for key in near for error in self.errors[key]]

    def _by_kind(self, group: Group) -> list[float]:
        near = [key for key in self.errors if key.kind == group.kind and key.lane != group.lane]
        return [error for key in near for error in self.errors[key]]


@dataclass(frozen=True, kw_only=True)
class Workforce:
    """The workers of a pool.

    Attributes:
        busy_s: Seconds for which each still renders, ascending; 0 = idle. Never empty.
        clip_s: Seconds a worker usually spends on one clip of what waits.
    """

    busy_s: Sequence[float]
    clip_s: float

    @property
    def grain_s(self) -> float:
        """Seconds between two claims when all are busy."""
        return max(1.0, self.clip_s / len(self.busy_s))


def wait_s(workforce: Workforce, *, ahead: int, ahead_cost_s: float) -> float:
    """Return when a worker is free for a job that has *ahead* others before it.

    Within the first round the answer is the moment at which that many workers are free; later it
    is all the work, shared, less what the other workers still have in hand then: half a clip each.
    """
    busy_s = workforce.busy_s
    if ahead < len(busy_s):
        return busy_s[ahead]
    in_hand_s = (len(busy_s) - 1) * ahead_cost_s / ahead / 2
    return max(busy_s[0], (sum(busy_s) + ahead_cost_s - in_hand_s) / len(busy_s))


def rest_s(totals_s: Sequence[float], *, elapsed_s: float, progress: float) -> float:
    """Return what a run has still to do, *totals_s* being how long such runs took, ascending.

    Until it reports progress, only its age speaks. Then its own pace does, the more the further it
    is.
    """
    if progress < PACE_FROM:
        longer_s = totals_s[bisect_right(totals_s, elapsed_s) :]
        return median(longer_s) - elapsed_s if longer_s else totals_s[-1] / len(totals_s)
    total_s = (1 - progress) * median(totals_s) + elapsed_s
    return (1 - progress) * total_s


def busy_s(cost_s: float, *, elapsed_s: float, progress: float) -> float:
    """Return for how long a run that costs *cost_s* still keeps its GPU."""
    if progress < PACE_FROM:
        return max(0.0, cost_s - elapsed_s)
    return cost_s * max(0.0, 1 - progress / RENDERED)


def guess_start(lane: Lane, wait: float, workforce: Workforce) -> Guess:
    band = bisect_right(WAIT_BANDS, wait / workforce.clip_s)
    return Guess(group=Group(Kind.START, lane, band), centre_s=wait, grain_s=workforce.grain_s)


def guess_finish(lane: Lane, wait: float, total: float, workforce: Workforce) -> Guess:
    """Guess when a job is done that starts in *wait* and then takes *total* seconds."""
    band = bisect_right(WAIT_BANDS, wait / workforce.clip_s)
    group = Group(Kind.FINISH, lane, band)
    return Guess(group=group, centre_s=wait + total, grain_s=workforce.grain_s)


def guess_rest(lane: Lane, rest: float, total: float) -> Guess:
    """Guess when a run is done that has *rest* of usually *total* seconds to go."""
    band = bisect_right(REST_BANDS, rest / total)
    return Guess(group=Group(Kind.REST, lane, band), centre_s=rest, grain_s=max(1.0, total / 50))


def median(ordered: Sequence[float]) -> float:
    """Return the middle of an ascending sequence, which is not empty."""
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which the next error lies with probability *share*.

    One past the last error is as likely a place as between any two: hence n + 1, and rounding away
    from the middle.
    """
    count = len(ordered)
    number = math.floor(share * (count + 1))
    if share > 1 / 2:
        number = math.ceil(share * (count + 1))
    return ordered[max(1, min(number, count)) - 1]
