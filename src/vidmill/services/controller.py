"""What keeps the queue whole when processes die: sweep, promote, reconcile, audit.

Every step is idempotent and bounded, so that two controllers at once do no harm; the leader's lease
only spares the work of doing it twice.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial, wraps

from vidmill.domain.job import RetryPolicy
from vidmill.domain.ports import EventBus, TicketSource
from vidmill.services.lifecycle import event_of
from vidmill.store import jobs, workers
from vidmill.store.session import Database, UnitOfWork
from vidmill.telemetry import get_logger

log = get_logger(__name__)

LEASE_NAME = "controller"

FORGET_WORKER_S = 3600.0
"""A worker silent this long is forgotten; until then `doctor` can say that it went silent."""


@dataclass(frozen=True, kw_only=True)
class ControllerTimes:
    """How often each step runs, and the limits it goes by, in seconds."""

    sweep_s: float = 5.0
    promote_s: float = 1.0
    reconcile_s: float = 10.0
    audit_s: float = 300.0
    leader_lease_s: float = 15.0
    time_limit_s: float = 1800.0


class Controller:
    """The steps, each callable alone, and the loop that calls them in time."""

    def __init__(
        self,
        db: Database,
        tickets: TicketSource,
        bus: EventBus,
        *,
        pools: Sequence[str],
        policy: RetryPolicy,
        times: ControllerTimes,
        rng: random.Random,
        name: str,
    ) -> None:
        """Nothing is started yet.

        Args:
            db: The database; the caller closes it.
            tickets: Wakes the workers.
            bus: Tells watchers about runs that ended here.
            pools: Pools whose workers are woken.
            policy: Delays of retries.
            times: How often what happens.
            rng: Jitter of retries.
            name: Of this process, random and new at each start; holds the leader's lease.
        """
        self._db = db
        self._tickets = tickets
        self._bus = bus
        self._pools = tuple(pools)
        self._policy = policy
        self._times = times
        self._rng = rng
        self._name = name
        self._is_leader = False
        self._every_s: dict[Callable[[], object], float] = {
            self.lead: times.leader_lease_s / 3,
            self._while_leading(self.sweep): times.sweep_s,
            self._while_leading(self.promote): times.promote_s,
            self._while_leading(self.reconcile): times.reconcile_s,
            self._while_leading(self.audit): times.audit_s,
        }

    def start(self, *, live: Collection[str]) -> list[jobs.Swept]:
        """Take up what an earlier stack left running; for the embedded start, before workers come.

        Args:
            live: Ids of workers that are known to live.
        """

        def work(uow: UnitOfWork) -> list[jobs.Swept]:
            workers.free_lease(uow, LEASE_NAME)  # its holder died with the stack before this one
            return self._told(uow, jobs.release_dead(uow, live=live))

        swept = self._db.write(work)
        self.reconcile()
        return swept

    def lead(self) -> bool:
        """Take or renew the leader's lease; False while another controller leads."""
        self._is_leader = False  # until it is known; the write may fail
        self._is_leader = self._db.write(
            lambda uow: workers.seize_lease(
                uow, LEASE_NAME, holder=self._name, lease_s=self._times.leader_lease_s
            )
        )
        return self._is_leader

    def step_down(self) -> None:
        """Give up the leader's lease, so that another need not wait for its end."""
        self._is_leader = False
        self._db.write(lambda uow: workers.free_lease(uow, LEASE_NAME, holder=self._name))

    def sweep(self) -> list[jobs.Swept]:
        """End runs whose worker is lost or stuck, and forget workers long gone."""

        def work(uow: UnitOfWork) -> list[jobs.Swept]:
            workers.drop_expired(uow, older_than_s=FORGET_WORKER_S)
            swept = jobs.sweep(
                uow,
                policy=self._policy,
                jitter=self._rng.random,
                time_limit_s=self._times.time_limit_s,
            )
            return self._told(uow, swept)

        return self._db.write(work)

    def promote(self) -> set[str]:
        """Queue due retries again and wake the workers of their pools."""
        pools = self._db.write(jobs.promote)
        for pool in sorted(pools):
            self._tickets.publish(pool)
        return pools

    def reconcile(self) -> int:
        """Send the tickets that may be lost: one per idle worker, as far as there is work."""
        wanted = self._db.read(
            lambda conn: {
                pool: min(
                    sum(depth.queued for depth in jobs.queue_depths(conn, pool).values()),
                    workers.idle_count(conn, pool, now=self._db.now()),
                )
                for pool in self._pools
            }
        )
        for pool, count in wanted.items():
            for _ in range(count):
                self._tickets.publish(pool)
        return sum(wanted.values())

    def audit(self) -> jobs.Drift:
        """Compare the counters with the rows; set right what disagrees, and say so loudly."""
        if not self._db.read(jobs.find_drift):
            return jobs.Drift(flows=0, tenants=0)
        drift = self._db.write(jobs.audit)
        log.error("counters_drifted", flows=drift.flows, tenants=drift.tenants)
        return drift

    def run(
        self, stop: threading.Event, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Call each step when it is due, as long as this controller leads, until *stop* is set.

        A step that fails (the disk is full, say) is tried again when it is due next.
        """
        due = dict.fromkeys(self._every_s, monotonic())
        while not stop.is_set():
            for step, every_s in self._every_s.items():
                if monotonic() >= due[step]:
                    due[step] = monotonic() + every_s
                    _attempted(step)
            stop.wait(max(0.0, min(due.values()) - monotonic()))
        _attempted(self.step_down)

    def _while_leading(self, step: Callable[[], object]) -> Callable[[], object]:
        @wraps(step)
        def guarded() -> object:
            return step() if self._is_leader else None

        return guarded

    def _told(self, uow: UnitOfWork, swept: list[jobs.Swept]) -> list[jobs.Swept]:
        """Once committed, tell watchers of the runs that ended."""
        for run in swept:
            job = jobs.get_by_id(uow.conn, run.job_id)
            assert job is not None, "it was swept in this very transaction"
            uow.after_commit(partial(self._bus.publish, job.public_id, event_of(job)))
            log.warning(
                "run_lost", job_id=run.public_id, attempt=run.attempt, state=run.state.value
            )
        return swept


def _attempted(step: Callable[[], object]) -> None:
    """Call *step*; like the worker's loop, this one must outlive any failure of one turn."""
    try:
        step()
    except Exception:
        log.exception("controller_step_failed", step=getattr(step, "__name__", ""))
