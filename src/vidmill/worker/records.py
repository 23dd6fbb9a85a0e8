"""What the supervisor writes down: claims, leases, outcomes, each fenced by the attempt."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import VidmillError
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.services.lifecycle import Lifecycle
from vidmill.store import jobs, workers
from vidmill.store.breakers import BreakerPolicy
from vidmill.store.claim import ClaimRules
from vidmill.store.jobs import Owned, Progress
from vidmill.store.places import pools_with_work
from vidmill.store.routes import Route
from vidmill.store.session import UnitOfWork
from vidmill.store.workers import WorkerState
from vidmill.wiring import App
from vidmill.worker.runs import Run

Outcome = ClipResult | VidmillError | None
"""How a run ended: done, gone wrong, or handed back to the queue uncounted (None)."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Where this supervisor serves.

    Attributes:
        worker: A name never used before: leases are told apart by it.
        engine: `module:Class` of the engine.
        routes: The pools it serves, those tried first in front; at least one has no wait.
        worker_class: Whose routes those are; empty = made of one pool.
    """

    worker: str
    engine: str
    routes: tuple[Route, ...]
    worker_class: str = ""

    @property
    def pools(self) -> tuple[str, ...]:
        """Those it serves without a wait, and so takes tickets of."""
        return tuple(route.pool for route in self.routes if not route.min_wait_s)


class Records:
    """The database as one worker writes it."""

    def __init__(self, app: App, assignment: Assignment, *, host: str, pid: int) -> None:
        settings = app.settings
        self._app = app
        self._worker = assignment.worker
        self._post = assignment
        self._host, self._pid = host, pid
        self._lease_s = settings.lease_s
        self._rules = ClaimRules(batch_age_s=settings.batch_age_s)
        self._lifecycle = Lifecycle(
            db=app.db,
            bus=app.bus,
            tickets=app.tickets,
            retry=RetryPolicy(
                base_s=settings.retry_base_s,
                cap_s=settings.retry_cap_s,
                crash_max=settings.crash_max,
            ),
            breaker=BreakerPolicy(
                failures=settings.breaker_failures,
                rest_s=settings.breaker_rest_s,
                rest_cap_s=settings.breaker_rest_cap_s,
            ),
        )

    def claim(self, loras: Sequence[str] = ()) -> Job | None:
        """Take the best job of the first pool that has one for us; *loras* are those we hold."""
        db, routes = self._app.db, self._post.routes
        now = db.now()
        for pool in db.look(lambda conn: pools_with_work(conn, routes, now)):
            job = self._claim_from(pool, loras)
            if job:
                return job
        return None

    def _claim_from(self, pool: str, loras: Sequence[str]) -> Job | None:
        return self._app.db.write(
            lambda uow: jobs.claim(
                uow,
                pool=pool,
                worker=self._worker,
                profile=self._app.profile.name,
                lease_s=self._lease_s,
                rules=self._rules,
                loras=loras,
            )
        )

    def beat(self, runs: Iterable[Run], state: WorkerState, detail: str) -> list[Owned]:
        """Renew the leases, write progress and the worker's state; return what is still ours."""
        progress = [Progress(r.job.id, r.job.attempt, r.phase, r.progress) for r in runs]

        def write(uow: UnitOfWork) -> list[Owned]:
            self._renew(uow, state, detail)
            return jobs.heartbeat(
                uow, worker=self._worker, lease_s=self._lease_s, progress=progress
            )

        return self._app.db.write(write)

    def report(self, state: WorkerState, detail: str) -> None:
        """Say how the worker is, now."""
        self._app.db.write(lambda uow: self._renew(uow, state, detail))

    def settle(self, job: Job, outcome: Outcome) -> JobState | None:
        """Write how a run ended; None = the job is not ours any more."""
        if isinstance(outcome, ClipResult):
            return self._lifecycle.complete(job, outcome)
        if outcome is None:
            return self.hand_back(job)
        return self._lifecycle.fail(job, outcome, jitter=random.random())

    def hand_back(self, job: Job) -> JobState | None:
        """Queue the job again, the attempt not counted."""
        return self._lifecycle.release(job)

    def find(self, job_id: int) -> Job | None:
        return self._app.db.read(lambda conn: jobs.get_by_id(conn, job_id))

    def sign_off(self) -> None:
        self._app.db.write(lambda uow: workers.drop(uow, self._worker))

    def _renew(self, uow: UnitOfWork, state: WorkerState, detail: str) -> None:
        known = workers.renew(
            uow, worker=self._worker, lease_s=self._lease_s, state=state, detail=detail
        )
        if not known:
            workers.register(
                uow,
                worker=self._worker,
                pool=self._post.pools[0],
                pools=self._post.pools,
                worker_class=self._post.worker_class,
                host=self._host,
                pid=self._pid,
                profile=self._app.profile.name,
                lease_s=self._lease_s,
            )
            workers.renew(
                uow, worker=self._worker, lease_s=self._lease_s, state=state, detail=detail
            )
