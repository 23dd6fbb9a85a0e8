"""What keeps the queue whole when processes die: sweep, promote, reconcile, audit.

Every step is idempotent and bounded, so that two controllers at once do no harm; the leader's lease
only spares the work of doing it twice. The workers' pools are found in the database.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial, wraps

from vidmill.domain.job import RetryPolicy
from vidmill.domain.ports import EventBus, TicketSource
from vidmill.services.lifecycle import announce
from vidmill.store import breakers, jobs, ledger, pools, workers
from vidmill.store.session import Database, UnitOfWork
from vidmill.telemetry import get_logger

log = get_logger(__name__)

LEASE_NAME = "controller"

FORGET_WORKER_S = 3600.0
"""A worker silent this long is forgotten; until then `doctor` can say that it went silent."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What did not agree: counters with the rows (mended), jobs with their ledger (never)."""

    drift: jobs.Drift
    mismatches: tuple[ledger.Mismatch, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drift or self.mismatches)


@dataclass(frozen=True, kw_only=True)
class ControllerTimes:
    """How often each step runs, and the limits it goes by, in seconds."""

    sweep_s: float = 5.0
    promote_s: float = 1.0
    reconcile_s: float = 10.0
    audit_s: float = 300.0
    calibrate_s: float = 10.0
    chores_s: float = 1.0
    leader_lease_s: float = 9.0
    time_limit_s: float = 1800.0


class Controller:
    """The steps, each callable alone, and the loop that calls them in time."""

    def __init__(
        self,
        db: Database,
        tickets: TicketSource,
        bus: EventBus,
        *,
        policy: RetryPolicy,
        times: ControllerTimes,
        rng: random.Random,
        name: str,
        calibrate: Callable[[Iterable[str]], object] | None = None,
        chores: Sequence[Callable[[], object]] = (),
    ) -> None:
        """Nothing is started yet.

        Args:
            db: The database; the caller closes it.
            tickets: Wakes the workers.
            bus: Tells watchers about runs that ended here.
            policy: Delays of retries.
            times: How often what happens.
            rng: Jitter of retries.
            name: Of this process, random and new at each start; holds the leader's lease.
            calibrate: Keeps the forecasts of these pools honest, every few seconds.
            chores: What other services want done each second by the leader; each idempotent. They
                may wait for a store, so they have a thread of their own.
        """
        self._db = db
        self._tickets = tickets
        self._bus = bus
        self._policy = policy
        self._times = times
        self._rng = rng
        self._name = name
        self._calibrate = calibrate
        self._chores = tuple(chores)
        self._is_leader = False
        self._every_s: dict[Callable[[], object], float] = {
            self.lead: times.leader_lease_s / 3,
            self._while_leading(self.sweep): times.sweep_s,
            self._while_leading(self.promote): times.promote_s,
            self._while_leading(self.reconcile): times.reconcile_s,
            self._while_leading(self.audit): times.audit_s,
            self._while_leading(self.calibrate): times.calibrate_s,
        }

    def start(self, *, live: Collection[str]) -> list[jobs.Settled]:
        """Take up what an earlier stack left running, where no other stack uses the database.

        Args:
            live: Ids of workers that are known to live.
        """

        def work(uow: UnitOfWork) -> list[jobs.Settled]:
            workers.free_lease(uow, LEASE_NAME)  # its holder died with the stack before this one
            return self._told(uow, jobs.release_dead(uow, live=live))

        swept = self._db.write(work)
        self.reconcile()
        return swept

    def join(self, *, dead: Collection[str]) -> list[jobs.Settled]:
        """Take up what the workers *dead* left running; all others may live on other machines.

        Args:
            dead: Ids of workers whose processes were of this machine and are gone.
        """
        return self._db.write(lambda uow: self._told(uow, jobs.release_dead(uow, dead=dead)))

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

    def sweep(self) -> list[jobs.Settled]:
        """End runs whose worker is lost or stuck, and forget workers long gone."""

        def work(uow: UnitOfWork) -> list[jobs.Settled]:
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
        """Send the tickets that may be lost: one per idle worker, as far as there is work.

        A pool whose rest is over gets one more, for the job that is to be tried.
        """
        now = self._db.now()
        queued, idle, due = self._db.read(
            lambda conn: (
                pools.queued(conn),
                workers.idle_counts(conn, now=now),
                breakers.due_pools(conn, now),
            )
        )
        wanted = Counter({pool: min(count, idle[pool]) for pool, count in queued.items()})
        wanted += Counter({pool: 1 for pool in due if queued.get(pool) and not wanted[pool]})
        for pool in wanted.elements():
            self._tickets.publish(pool)
        return wanted.total()

    def audit(self) -> Audited:
        """Compare counters and ledger with the rows; mend the counters, and say so loudly."""
        drift, mismatches = self._db.read(lambda conn: (jobs.find_drift(conn), ledger.audit(conn)))
        if drift:
            drift = self._db.write(jobs.audit)
            log.error("counters_drifted", flows=drift.flows, tenants=drift.tenants)
        for wrong in mismatches:
            log.error("ledger_disagrees", **asdict(wrong))
        return Audited(drift=drift, mismatches=tuple(mismatches))

    def calibrate(self) -> None:
        """Let the forecasts be judged, if somebody does."""
        if self._calibrate:
            self._calibrate(self._db.read(pools.known))

    def run(
        self, stop: threading.Event, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Call each step when it is due, as long as this controller leads, until *stop* is set.

        A step that fails (the disk is full, say) is tried again when it is due next.
        """
        chores = threading.Thread(target=self._do_chores, args=(stop,), name="chores")
        chores.start()
        due = dict.fromkeys(self._every_s, monotonic())
        while not stop.is_set():
            for step, every_s in self._every_s.items():
                if monotonic() >= due[step]:
                    due[step] = monotonic() + every_s
                    _attempted(step)
            stop.wait(max(0.0, min(due.values()) - monotonic()))
        _attempted(self.step_down)
        chores.join()

    def _do_chores(self, stop: threading.Event) -> None:
        while self._chores and not stop.is_set():
            for chore in self._chores:
                _attempted(self._while_leading(chore))
            stop.wait(self._times.chores_s)

    def _while_leading(self, step: Callable[[], object]) -> Callable[[], object]:
        @wraps(step)
        def guarded() -> object:
            return step() if self._is_leader else None

        return guarded

    def _told(self, uow: UnitOfWork, swept: list[jobs.Settled]) -> list[jobs.Settled]:
        """Once committed, tell watchers of the runs that ended."""
        for run in swept:
            announce(uow, run, bus=self._bus, tickets=self._tickets)
            uow.after_commit(partial(_log_lost, run))
        return swept


def _log_lost(run: jobs.Settled) -> None:
    job = run.job
    log.warning("run_lost", job_id=job.public_id, attempt=job.attempt, state=job.state.value)


def _attempted(step: Callable[[], object]) -> None:
    """Call *step*; like the worker's loop, this one must outlive any failure of one turn."""
    try:
        step()
    except Exception:
        log.exception("controller_step_failed", step=getattr(step, "__name__", ""))
