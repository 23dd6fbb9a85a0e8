"""A farm of GPUs played event by event: arrivals, claims, runs that fail, workers that die.

Who is next is decided by `bench.twin`, when a clip is said to be ready by `bench.foresight`.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bench.twin import PoolTwin, Tenant, Work
from vidmill.domain.job import Lane, RetryPolicy

DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Clips of one size and length: their share of the orders, and their mean GPU seconds."""

    name: str
    share: float
    render_s: float


SHAPES = (
    Shape(name="480p 3 s", share=0.18, render_s=60),
    Shape(name="480p 5 s", share=0.30, render_s=110),
    Shape(name="480p 8 s", share=0.08, render_s=190),
    Shape(name="480p 10 s", share=0.04, render_s=250),
    Shape(name="720p 3 s", share=0.08, render_s=160),
    Shape(name="720p 5 s", share=0.22, render_s=300),
    Shape(name="720p 8 s", share=0.06, render_s=520),
    Shape(name="720p 10 s", share=0.04, render_s=700),
)
MEAN_RENDER_S = sum(shape.share * shape.render_s for shape in SHAPES)


@dataclass(frozen=True, kw_only=True)
class Route:
    pool: str
    min_wait_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WorkerClass:
    count: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, kw_only=True)
class Hazards:
    """What goes wrong, and how unevenly things run.

    Attributes:
        jitter: Standard deviation of the logarithm of a run's time; half of it again differs from
            worker to worker and stays.
        worker_life_s: Mean time from a worker's start to its sudden death.
        lost_after_s: Lease and sweep: how long a dead worker's job is thought to run.
        reload_s: From a death, or an order for a worker, to a model that is loaded and warm.
        poll_s: How often an idle worker looks for pools it may help.
    """

    failures: float = 0.01
    jitter: float = 0.08
    worker_life_s: float = 3 * DAY_S
    lost_after_s: float = 33.0
    reload_s: float = 240.0
    finish_s: tuple[float, float] = (5.0, 15.0)
    poll_s: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """Workers wanted = busy + queued GPU seconds / drain_s; idle ones go after idle_s."""

    drain_s: float = 300.0
    idle_s: float = 300.0
    every_s: float = 30.0


@dataclass(slots=True)
class Worker:
    routes: tuple[Route, ...]
    speed: float
    is_up: bool = True
    is_coming: bool = False
    run: Work | None = None
    up_since: float = 0.0
    idle_since: float = 0.0
    life: int = 0


@dataclass
class Tally:
    """What happened, for the report. `waits`: seconds from submission to the first start."""

    waits: dict[Lane, list[float]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    done: int = 0
    busy_s: float = 0.0
    paid_s: float = 0.0
    deaths: int = 0
    failures: int = 0


class Watcher:
    """Looks on; the farm is not changed by it."""

    def started(self, work: Work, now: float) -> None: ...

    def finished(self, work: Work, now: float) -> None: ...


class Farm:
    """All pools, workers and what waits for them."""

    def __init__(
        self,
        classes: Iterable[WorkerClass],
        *,
        tenants: Mapping[int, Tenant],
        rng: random.Random,
        hazards: Hazards | None = None,
        autoscaling: Autoscaling | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.hazards = hazards or Hazards()
        self._autoscaling = autoscaling
        self._rng = rng
        self._watcher = watcher or Watcher()
        self.tenants = tenants
        self.workers = [
            Worker(kind.routes, speed=rng.lognormvariate(0, self.hazards.jitter / 2))
            for kind in classes
            for _ in range(kind.count)
        ]
        names = {route.pool for worker in self.workers for route in worker.routes}
        self.pools = {name: PoolTwin(tenants) for name in sorted(names)}
        self._overflow_s = {name: self._delays_s(name) for name in names}
        self.tally = Tally()
        self.now = 0.0
        self.outstanding = 0
        self._gone_s = 0.0
        self._retry = RetryPolicy()
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._idle: dict[int, Worker] = dict(enumerate(self.workers))
        self._number_of = {id(worker): n for n, worker in enumerate(self.workers)}
        for worker in self.workers:
            self._mortal(worker)
        if autoscaling:
            for worker in self.workers:
                self._switch_off(worker)
            self.at(0.0, self._scale)

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), act))

    def play(self, *, until: float) -> None:
        """Let time pass until then, or until all is done and nothing more will come."""
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def paid_s(self) -> float:
        """Return the seconds that workers were up until now, loading included."""
        return self._gone_s + sum(self.now - w.up_since for w in self.workers if w.is_up)

    def submit(self, work: Work) -> None:
        self.outstanding += 1
        self._queue(work)

    def of_pool(self, pool: str) -> list[Worker]:
        """Return the workers that serve *pool* at once."""
        return [
            worker
            for worker in self.workers
            if worker.is_up and any(r.pool == pool and not r.min_wait_s for r in worker.routes)
        ]

    def _queue(self, work: Work) -> None:
        self.pools[work.pool].add(work)
        self._offer(work.pool)
        for delay in self._overflow_s[work.pool]:
            self.at(self.now + delay + self._rng.random() * self.hazards.poll_s, self._look)

    def _delays_s(self, pool: str) -> list[float]:
        """Return after which waits other workers may help *pool*."""
        routes = {route for worker in self.workers for route in worker.routes}
        return sorted(r.min_wait_s for r in routes if r.pool == pool and r.min_wait_s)

    def _offer(self, pool: str) -> None:
        """Wake one idle worker that serves *pool* at once."""
        for worker in self._idle.values():
            if any(route.pool == pool and not route.min_wait_s for route in worker.routes):
                self._next(worker)
                return

    def _look(self) -> None:
        """One idle worker polls: the pools it may help by now."""
        for worker in list(self._idle.values()):
            if self._next(worker):
                return

    def _next(self, worker: Worker) -> bool:
        """Let *worker* claim; False when there is nothing for it."""
        for route in worker.routes:
            pool = self.pools[route.pool]
            if not pool or (route.min_wait_s and not self._has_waited(pool, route.min_wait_s)):
                continue
            work = pool.claim(self.now)
            if work is not None:
                self._begin(worker, work)
                return True
        self._idle[self._number_of[id(worker)]] = worker
        worker.idle_since = self.now
        return False

    def _has_waited(self, pool: PoolTwin, min_wait_s: float) -> bool:
        return self.now - min(pool.oldest_at(lane) for lane in Lane) >= min_wait_s

    def _begin(self, worker: Worker, work: Work) -> None:
        self._idle.pop(self._number_of[id(worker)], None)
        worker.run = work
        if work.attempt == 1:
            self.tally.waits[work.lane].append(self.now - work.submitted_at)
        work.started_at = self.now
        work.cost_s = SHAPES[work.shape].render_s * worker.speed
        work.cost_s *= self._rng.lognormvariate(0, self.hazards.jitter)
        work.total_s = work.cost_s + self._rng.uniform(*self.hazards.finish_s)
        self._watcher.started(work, self.now)
        life = worker.life
        if self._rng.random() < self.hazards.failures:
            share = self._rng.random()
            self.at(self.now + share * work.cost_s, lambda: self._failed(worker, work, life))
        else:
            self.at(self.now + work.cost_s, lambda: self._rendered(worker, work, life))

    def _rendered(self, worker: Worker, work: Work, life: int) -> None:
        if worker.life != life:
            return
        rest_s = work.total_s - work.cost_s
        self.at(self.now + rest_s, lambda: self._finished(work))
        self._free(worker, work)

    def _finished(self, work: Work) -> None:
        self.pools[work.pool].settle(work, work.cost_s)
        self.tally.done += 1
        self.outstanding -= 1
        self._watcher.finished(work, self.now)

    def _failed(self, worker: Worker, work: Work, life: int) -> None:
        if worker.life != life:
            return
        self.tally.failures += 1
        self._again(work, after_s=0.0)
        self._free(worker, work)

    def _again(self, work: Work, *, after_s: float) -> None:
        """Have a lost or failed run noticed after so long, and tried again later."""
        began = work.started_at
        delay_s = self._retry.delay_s(work.attempt, self._rng.random())

        def noticed() -> None:
            self.pools[work.pool].settle(work, self.now - began)

        self.at(self.now + after_s, noticed)
        self.at(self.now + after_s + delay_s, lambda: self._queue(work))

    def _free(self, worker: Worker, work: Work) -> None:
        worker.run = None
        self.tally.busy_s += self.now - work.started_at
        self._next(worker)

    def _mortal(self, worker: Worker) -> None:
        life = worker.life
        dies_at = self.now + self._rng.expovariate(1 / self.hazards.worker_life_s)
        self.at(dies_at, lambda: self._dies(worker, life))

    def _dies(self, worker: Worker, life: int) -> None:
        if worker.life != life or not worker.is_up:
            return
        self.tally.deaths += 1
        work, worker.run = worker.run, None
        self._switch_off(worker)
        if work is not None:
            self._again(work, after_s=self.hazards.lost_after_s)
        self._order(worker)

    def _switch_off(self, worker: Worker) -> None:
        self._gone_s += self.now - worker.up_since
        worker.is_up = False
        worker.life += 1
        self._idle.pop(self._number_of[id(worker)], None)

    def _order(self, worker: Worker) -> None:
        """Start a worker; it is paid for while it loads."""
        worker.is_coming = True
        ordered_at = self.now

        def ready() -> None:
            worker.is_up, worker.is_coming, worker.up_since = True, False, ordered_at
            self._mortal(worker)
            self._next(worker)

        self.at(self.now + self.hazards.reload_s, ready)

    def _scale(self) -> None:
        """Order what the queue wants and send idle workers home, as an autoscaler would."""
        rules = self._autoscaling
        assert rules is not None
        queued_s = sum(pool.queued_cost_s() for pool in self.pools.values())
        num_busy = sum(worker.run is not None for worker in self.workers)
        num_coming = sum(worker.is_coming for worker in self.workers)
        wanted = num_busy + -(-queued_s // rules.drain_s)
        missing = int(wanted) - num_busy - num_coming - len(self._idle)
        off = deque(w for w in self.workers if not w.is_up and not w.is_coming)
        for _ in range(min(missing, len(off))):
            self._order(off.popleft())
        for worker in list(self._idle.values()):
            if missing < 0 and self.now - worker.idle_since > rules.idle_s:
                self._switch_off(worker)
        self.at(self.now + rules.every_s, self._scale)
