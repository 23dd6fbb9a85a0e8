"""Keeping the forecast honest: a few live jobs are predicted now and then, and judged later."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from vidmill.domain.eta import Guess
from vidmill.domain.job import Job, Lane
from vidmill.services.forecast import Facts, Forecast
from vidmill.store import jobs, predictions
from vidmill.store.session import Database, UnitOfWork

OPEN_MAX = 300
"""Predictions of a lane and kind that may wait for the truth: hours of waiting stay cheap."""


@dataclass(frozen=True, kw_only=True)
class Calibrator:
    """One step, for the leading controller to take every ten seconds."""

    db: Database
    forecast: Forecast
    rng: random.Random

    def step(self, pools: Iterable[str]) -> int:
        """Judge old predictions and make new ones; return how many errors were noted."""
        told = [line for pool in pools for line in self._foretell(pool)]

        def work(uow: UnitOfWork) -> int:
            noted = predictions.judge(uow)
            for job, guess, late_s in told:
                predictions.tell(uow, job, guess, late_s=late_s)
            return noted

        return self.db.write(work)

    def _foretell(self, pool: str) -> list[tuple[Job, Guess, float]]:
        """Return predictions for a waiting job of each lane and for a running one."""
        calibration = self.forecast.calibration(pool)
        counts = self.db.read(lambda conn: predictions.open_counts(conn, pool))
        return [
            (job, guess, calibration.interval(guess).p90)
            for job in self._sample(pool)
            for guess in self._guesses(job)
            if counts.get((job.lane, guess.group.kind), 0) < OPEN_MAX
        ]

    def _guesses(self, job: Job) -> list[Guess]:
        found = self.forecast.guesses(job, job.progress)
        return [guess for guess in (found.start, found.finish) if guess] if found else []

    def _sample(self, pool: str) -> list[Job]:
        """Return one job of each lane that waits, and one of each that runs."""
        facts = self.forecast.facts(pool)
        choices = [
            ids
            for lane in Lane
            for ids in (_waiting(facts, lane), facts.hands.running.get(lane, ()))
            if ids
        ]
        chosen = [self.rng.choice(ids) for ids in choices]
        found = self.db.read(lambda conn: [jobs.get_by_id(conn, job_id) for job_id in chosen])
        return [job for job in found if job is not None]


def _waiting(facts: Facts, lane: Lane) -> list[int]:
    found = [ids for key, ids in facts.queue.ids.items() if key[0] == lane]
    return [job_id for ids in found for _, job_id in ids]
