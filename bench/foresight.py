"""The production's forecast, made of jobs in the simulation and held against what came."""

import itertools
import random
from collections import defaultdict, deque
from dataclasses import dataclass

from bench.farm import MEAN_RENDER_S, Farm, Watcher, Worker
from bench.twin import PoolTwin, Work
from vidmill.domain.eta import (
    Calibration,
    Group,
    Guess,
    Interval,
    Workforce,
    busy_s,
    guess_finish,
    guess_rest,
    guess_start,
    median,
    rest_s,
    wait_s,
)
from vidmill.domain.job import Lane
from vidmill.store import learning, predictions

STEPS = 40
"""Progress is told by denoising step."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A prediction, and the interval it was given."""

    made_at: float
    pool: str
    lane: Lane
    guess: Guess
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    told: Told
    actual_s: float

    @property
    def is_hit(self) -> bool:
        return self.told.interval.p10 <= self.actual_s <= self.told.interval.p90


class Foresight(Watcher):
    """Samples live jobs every *every_s*: one per lane that waits, one per lane that runs."""

    def __init__(self, *, every_s: float, rng: random.Random) -> None:
        self._every_s = every_s
        self._rng = rng
        self._totals: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=learning.KEPT))
        self._errors: dict[str, dict[Group, deque[float]]] = {}
        self._until_start: dict[int, list[Told]] = defaultdict(list)
        self._until_finish: dict[int, list[Told]] = defaultdict(list)
        self.verdicts: list[Verdict] = []
        self._farm: Farm | None = None

    def watch(self, farm: Farm, *, until: float) -> None:
        self._farm = farm

        def step() -> None:
            self._sample(farm)
            if farm.now < until:
                farm.at(farm.now + self._every_s * self._rng.uniform(0.5, 1.5), step)

        farm.at(0.0, step)

    def started(self, work: Work, now: float) -> None:
        self._judge(self._until_start, work, now)

    def finished(self, work: Work, now: float) -> None:
        self._totals[work.shape].append(work.total_s)
        self._judge(self._until_finish, work, now)

    def _judge(self, open_: dict[int, list[Told]], work: Work, now: float) -> None:
        for told in open_.pop(work.id, ()):
            actual_s = now - told.made_at
            self.verdicts.append(Verdict(told=told, actual_s=actual_s))
            group = told.guess.group
            errors = self._errors[told.pool].setdefault(group, deque(maxlen=predictions.KEPT))
            errors.append(told.guess.error(actual_s))

    def _sample(self, farm: Farm) -> None:
        for name, pool in farm.pools.items():
            workers = farm.of_pool(name)
            if not workers:
                continue
            calibration = Calibration(errors=self._errors_by_now(name, farm.now))
            workforce, flows = _workforce(pool, workers, farm.now), pool.foreseen_flows()
            for lane in Lane:
                for work in self._one(pool.waiting(lane)):
                    place = pool.place(work, flows)
                    wait = wait_s(workforce, ahead=place.ahead, ahead_cost_s=place.ahead_cost_s)
                    total_s = median(sorted(self._totals[work.shape]))
                    start = guess_start(lane, wait, workforce)
                    finish = guess_finish(lane, wait, total_s, workforce)
                    self._tell(self._until_start, work, start, calibration)
                    self._tell(self._until_finish, work, finish, calibration)
                for work in self._one([w.run for w in workers if w.run and w.run.lane == lane]):
                    guess = self._guess_rest(work, farm.now)
                    self._tell(self._until_finish, work, guess, calibration)

    def _one(self, works: list[Work]) -> list[Work]:
        """Return one of *works*, if there is one whose shape was measured."""
        work = self._rng.choice(works) if works else None
        return [work] if work and self._totals[work.shape] else []

    def _guess_rest(self, work: Work, now: float) -> Guess:
        totals_s, elapsed_s = sorted(self._totals[work.shape]), now - work.started_at
        rest = rest_s(totals_s, elapsed_s=elapsed_s, progress=_progress(work, now))
        return guess_rest(work.lane, rest, median(totals_s))

    def _errors_by_now(self, pool: str, now: float) -> dict[Group, list[float]]:
        """Return the errors that are known, and the least that overdue guesses will have."""
        errors = {group: list(kept) for group, kept in self._errors.setdefault(pool, {}).items()}
        for open_ in (self._until_start, self._until_finish):
            for told in itertools.chain.from_iterable(open_.values()):
                if told.pool == pool and now - told.made_at > told.interval.p90:
                    errors.setdefault(told.guess.group, []).append(
                        told.guess.error(now - told.made_at)
                    )
        return errors

    def _tell(
        self, open_: dict[int, list[Told]], work: Work, guess: Guess, calibration: Calibration
    ) -> None:
        assert self._farm is not None
        told = Told(
            made_at=self._farm.now,
            pool=work.pool,
            lane=work.lane,
            guess=guess,
            interval=calibration.interval(guess),
        )
        open_[work.id].append(told)


def _workforce(pool: PoolTwin, workers: list[Worker], now: float) -> Workforce:
    queued = sum(pool.queued(lane) for lane in Lane)
    return Workforce(
        busy_s=sorted(_left(worker.run, now) if worker.run else 0.0 for worker in workers),
        clip_s=pool.queued_cost_s() / queued if queued else MEAN_RENDER_S,
    )


def _progress(work: Work, now: float) -> float:
    """Return what a run would say of itself: denoising takes 95 % of the time, 80 % of progress."""
    share = min(1.0, (now - work.started_at) / (0.95 * work.cost_s))
    return 0.02 + 0.80 * int(share * STEPS) / STEPS if share < 1 else 0.85


def _left(work: Work, now: float) -> float:
    return busy_s(work.est_cost_s, elapsed_s=now - work.started_at, progress=_progress(work, now))
