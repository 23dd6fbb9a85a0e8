"""How long things take: what a clip will cost, and when a waiting task starts and is done."""

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vidmill.domain.clip import ClipSpec
from vidmill.domain.eta import (
    Calibration,
    Guess,
    Interval,
    Workforce,
    guess_finish,
    guess_rest,
    guess_start,
    median,
    rest_s,
    wait_s,
)
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.profile import ModelProfile
from vidmill.domain.scheduling import Place
from vidmill.store import jobs, learning, predictions, workforce
from vidmill.store.jobs import QueueSnapshot
from vidmill.store.learning import Durations
from vidmill.store.session import Connection, Database
from vidmill.store.workforce import Hands

T = TypeVar("T")

KEPT_S = 1.0
"""How old the facts of a forecast may be: polls come often, the queue is read once for all."""

CALIBRATED_S = 10.0
"""The same of the errors that intervals are made of; they are measured this often."""

READ_SHARE = 0.02
"""Largest share of its time a process spends on reading a long queue."""

_WAITS = frozenset({JobState.QUEUED, JobState.DELAYED})


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What lies before a task.

    Attributes:
        position: Tasks served before it, 0 = next; None unless it is queued.
        start: When it will be begun; None unless it waits, and where `finish` is None.
        finish: When it will be done; None until such a clip was measured, while the pool rests
            after failures, and at the end.
    """

    position: int | None = None
    start: Interval | None = None
    finish: Interval | None = None

    @property
    def eta(self) -> Interval | None:
        return self.finish


NOTHING_AHEAD = Outlook()


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What the queue as it is now says, before correction."""

    finish: Guess
    start: Guess | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was true of a pool a moment ago, and what each user queued since, next first."""

    queue: QueueSnapshot
    hands: Hands
    is_resting: bool
    newer: dict[tuple[Lane, int, int], list[tuple[int, int]]] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)

    def place(self, job: Job) -> Place:
        """Foresee when *job*, which waits, is served. Worked out once while the facts hold."""
        known = self.places.get(job.id)
        if known is None:
            newer = 0 if self.queue.has(job) else self._newer_before(job)
            known = self.queue.place(job, newer=newer)
            self.places[job.id] = known
        return known

    def workforce(self, job: Job) -> Workforce:
        """Return the workers; where none is ready, as if one were: somebody will start it."""
        flows = self.queue.flows.values()
        queued = sum(flow.queued for flow in flows)
        clip_s = sum(f.queued_cost_s for f in flows) / queued if queued else job.est_cost_s
        return Workforce(busy_s=self.hands.busy_s or (0.0,), clip_s=clip_s)

    def _newer_before(self, job: Job) -> int:
        """Return how many of the same user's jobs came since and are served sooner."""
        newer = self.newer.setdefault((job.lane, job.tenant_id, job.user_id), [])
        insort(newer, (job.rank, job.id))
        return bisect_left(newer, (job.rank, job.id))


class Forecast:
    """Learnt durations and the queue, each read at most once a second. Safe between threads."""

    def __init__(
        self,
        db: Database,
        *,
        profile: ModelProfile,
        pool: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._profile = profile
        self._pool = pool
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def measured_cost_s(self, spec: ClipSpec, pool: str | None = None) -> float | None:
        """Return the learnt GPU seconds of such a clip, None until one was made."""
        known = self._durations(spec, pool or self._pool)
        return None if known is None else known.render_s

    def cost_s(self, spec: ClipSpec, pool: str | None = None) -> float:
        """Return the learnt GPU seconds of such a clip, or the profile's first guess."""
        measured = self.measured_cost_s(spec, pool)
        return self._profile.seconds_per_step * spec.steps if measured is None else measured

    def outlook(self, job: Job, progress: float) -> Outlook:
        """Return where *job* stands and when it will be begun and done."""
        if job.is_terminal:
            return NOTHING_AHEAD
        position = self._position(job)
        guesses = self.guesses(job, progress)
        if guesses is None:
            return Outlook(position=position)
        calibration = self.calibration(job.pool)
        finish = _rounded(calibration.interval(guesses.finish))
        if guesses.start is None:
            return Outlook(position=position, finish=finish)
        start = _rounded(calibration.interval(guesses.start))
        return Outlook(position=position, start=start, finish=_not_before(finish, start))

    def guesses(self, job: Job, progress: float) -> Guesses | None:
        """Return when *job* is begun and done by the queue alone; None where nothing is known."""
        known = self._durations(job.spec, job.pool)
        facts = self.facts(job.pool)
        if known is None or facts.is_resting:
            return None
        now = self._db.now()
        if job.state is JobState.RUNNING and job.started_at is not None:
            elapsed_s = max(0.0, now - job.started_at)
            rest = rest_s(known.totals_s, elapsed_s=elapsed_s, progress=progress)
            return Guesses(finish=guess_rest(job.lane, rest, median(known.totals_s)))
        if job.state not in _WAITS:
            return None
        with self._lock:
            place = facts.place(job)
        return _guess_wait(job, place, facts, known, delay_s=(job.not_before or now) - now)

    def foresee_last(self, job: Job, count: int) -> Interval | None:
        """Return when the last of *count* jobs like *job* would be done, were they queued now."""
        known = self._durations(job.spec, job.pool)
        facts = self.facts(job.pool)
        if known is None or facts.is_resting:
            return None
        with self._lock:
            place = facts.queue.place(job, newer=count - 1)
        guesses = _guess_wait(job, place, facts, known)
        return _rounded(self.calibration(job.pool).interval(guesses.finish))

    def facts(self, pool: str) -> Facts:
        with self._lock:
            return self._recent(("facts", pool), lambda conn: self._read(conn, pool), KEPT_S)

    def calibration(self, pool: str) -> Calibration:
        def read(conn: Connection) -> Calibration:
            return Calibration(errors=predictions.errors(conn, pool, now=self._db.now()))

        return self._recent(("calibration", pool), read, CALIBRATED_S)

    def _position(self, job: Job) -> int | None:
        if job.state is not JobState.QUEUED:
            return None
        facts = self.facts(job.pool)
        with self._lock:
            return facts.place(job).ahead

    def _durations(self, spec: ClipSpec, pool: str) -> Durations | None:
        key = (pool, spec.profile, spec.native, spec.num_frames, spec.steps)
        return self._recent(key, lambda conn: learning.durations(conn, spec, pool), KEPT_S)

    def _recent(self, key: Hashable, read: Callable[[Connection], T], kept_s: float) -> T:
        """Return what *read* found lately; what takes long to read is read less often."""
        began = self._clock()
        kept = self._kept.get(key)
        if kept is None or kept[0] < began:
            found = self._db.read(read)
            until = began + max(kept_s, (self._clock() - began) / READ_SHARE)
            kept = self._kept[key] = (until, found)
        found_lately: T = kept[1]
        return found_lately

    def _read(self, conn: Connection, pool: str) -> Facts:
        return Facts(
            queue=jobs.queue_snapshot(conn, pool),
            hands=workforce.of_pool(conn, pool, now=self._db.now()),
            is_resting=workforce.is_resting(conn, pool, self._profile.name),
        )


def _guess_wait(
    job: Job, place: Place, facts: Facts, known: Durations, *, delay_s: float = 0.0
) -> Guesses:
    force = facts.workforce(job)
    wait = wait_s(force, ahead=place.ahead, ahead_cost_s=place.ahead_cost_s)
    wait = max(wait, delay_s)
    return Guesses(
        start=guess_start(job.lane, wait, force),
        finish=guess_finish(job.lane, wait, median(known.totals_s), force),
    )


def _rounded(interval: Interval) -> Interval:
    return Interval(
        p10=round(interval.p10, 1), p50=round(interval.p50, 1), p90=round(interval.p90, 1)
    )


def _not_before(finish: Interval, start: Interval) -> Interval:
    """Return *finish* with no end before that of *start*: the two are corrected apart."""
    return Interval(
        p10=max(finish.p10, start.p10),
        p50=max(finish.p50, start.p50),
        p90=max(finish.p90, start.p90),
    )
