"""How long things take: what a clip will cost, and when a queued task will be done."""

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from vidmill.domain.clip import ClipSpec, Size
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.profile import ModelProfile
from vidmill.domain.scheduling import Flow, Place, place
from vidmill.store import jobs, workers
from vidmill.store.jobs import QueueSnapshot
from vidmill.store.session import Connection, Database

KEPT_S = 1.0
"""How old the facts of a forecast may be: polls come often, the queue is read once for all."""

READ_SHARE = 0.02
"""Largest share of its time a process spends on reading a long queue."""

LATE_FACTOR = 1.5
"""p90 over p50, until spreads are learnt: durations of one shape on one machine vary far less."""


@dataclass(frozen=True, kw_only=True)
class Eta:
    """Seconds until a task is done: as likely sooner as later, and nine times in ten sooner."""

    p50: float
    p90: float


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What lies before a task.

    Attributes:
        position: Tasks served before it, 0 = next; None unless it is queued.
        eta: None until such a clip was measured, and at the end.
    """

    position: int | None
    eta: Eta | None


NOTHING_AHEAD = Outlook(position=None, eta=None)


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What was true of the pool a moment ago, and the ids of jobs that came since, by flow."""

    until: float
    queue: QueueSnapshot
    num_workers: int
    newer: dict[tuple[Lane, int], list[int]] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)

    def place(self, job: Job) -> Place:
        """Foresee when *job*, which is queued, is served. Worked out once while the facts hold."""
        known = self.places.get(job.id)
        if known is None:
            known = self.queue.place(job) or self._place_of_newer(job)
            self.places[job.id] = known
        return known

    def _place_of_newer(self, job: Job) -> Place:
        key = (job.lane, job.tenant_id)
        newer = self.newer.setdefault(key, [])
        insort(newer, job.id)
        rank = bisect_left(self.queue.ids.get(key, ()), job.id) + bisect_left(newer, job.id)
        own = self.queue.flows.get(key) or _new_flow(job)
        others = [flow for other, flow in self.queue.flows.items() if other != key]
        return place(own, rank, others=others, lane_clock=self.queue.lane_clock)


class Forecast:
    """Learnt costs and the queue, each read at most once a second. Safe between threads."""

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
        self._costs: dict[tuple[str, Size, int, int], tuple[float, float | None]] = {}
        self._facts: _Facts | None = None

    def measured_cost_s(self, spec: ClipSpec) -> float | None:
        """Return the learnt GPU seconds of such a clip, None until one was made."""
        key = (spec.profile, spec.native, spec.num_frames, spec.steps)
        now = self._clock()
        kept = self._costs.get(key)
        if kept is None or kept[0] < now:
            cost_s = self._db.read(lambda conn: jobs.expected_cost_s(conn, spec))
            kept = self._costs[key] = (now + KEPT_S, cost_s)
        return kept[1]

    def cost_s(self, spec: ClipSpec) -> float:
        """Return the learnt GPU seconds of such a clip, or the profile's first guess."""
        measured = self.measured_cost_s(spec)
        return self._profile.seconds_per_step * spec.steps if measured is None else measured

    def outlook(self, job: Job, progress: float) -> Outlook:
        """Return where *job* stands and when it will be done."""
        if job.is_terminal:
            return NOTHING_AHEAD
        own_s = self.measured_cost_s(job.spec)
        if job.state is not JobState.QUEUED:
            return Outlook(
                position=None, eta=None if own_s is None else _eta(own_s * (1 - progress))
            )
        with self._lock:
            facts = self._current()
            place = facts.place(job)
        if own_s is None:
            return Outlook(position=place.ahead, eta=None)
        ahead_s = place.ahead_cost_s + own_s / 2  # half of the clip now running
        return Outlook(position=place.ahead, eta=_eta(own_s + ahead_s / max(1, facts.num_workers)))

    def _current(self) -> _Facts:
        began = self._clock()
        if self._facts is None or self._facts.until < began:
            queue, num_workers = self._db.read(self._read)
            took_s = self._clock() - began
            until = began + max(KEPT_S, took_s / READ_SHARE)
            self._facts = _Facts(until=until, queue=queue, num_workers=num_workers)
        return self._facts

    def _read(self, conn: Connection) -> tuple[QueueSnapshot, int]:
        live = workers.all_workers(conn, now=self._db.now(), pool=self._pool)
        ready = [worker for worker in live if worker.state is workers.WorkerState.READY]
        return jobs.queue_snapshot(conn, self._pool), len(ready)


def _eta(p50: float) -> Eta:
    return Eta(p50=round(p50, 1), p90=round(p50 * LATE_FACTOR, 1))


def _new_flow(job: Job) -> Flow:
    """Return the flow of a tenant who had nothing queued: it starts level with the rest."""
    return Flow(
        lane=job.lane,
        tenant_id=job.tenant_id,
        queued=1,
        queued_cost_s=job.est_cost_s,
        start=0.0,
        weight=1.0,
    )
