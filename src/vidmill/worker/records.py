"""What the supervisor writes down: claims, leases, outcomes, each fenced by the attempt."""

import random
from collections.abc import Iterable

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import VidmillError
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.services import lifecycle
from vidmill.store import jobs, workers
from vidmill.store.jobs import Owned, Progress
from vidmill.store.session import UnitOfWork
from vidmill.store.workers import WorkerState
from vidmill.wiring import App
from vidmill.worker.runs import Run

Outcome = ClipResult | VidmillError | None
"""How a run ended: done, gone wrong, or handed back to the queue uncounted (None)."""


class Records:
    """The database as one worker writes it."""

    def __init__(self, app: App, *, worker: str, pool: str, host: str, pid: int) -> None:
        settings = app.settings
        self._app = app
        self._worker = worker
        self._pool = pool
        self._host, self._pid = host, pid
        self._lease_s = settings.lease_s
        self._policy = RetryPolicy(base_s=settings.retry_base_s, cap_s=settings.retry_cap_s)

    def claim(self) -> Job | None:
        """Take the best job of the pool, if there is one."""
        return self._app.db.write(
            lambda uow: jobs.claim(uow, pool=self._pool, worker=self._worker, lease_s=self._lease_s)
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
        app = self._app
        if isinstance(outcome, ClipResult):
            return lifecycle.complete(
                app.db,
                app.bus,
                job_id=job.id,
                public_id=job.public_id,
                attempt=job.attempt,
                worker=self._worker,
                result=outcome,
            )
        if outcome is None:
            return self.hand_back(job)
        return lifecycle.fail(
            app.db,
            app.bus,
            job_id=job.id,
            public_id=job.public_id,
            attempt=job.attempt,
            worker=self._worker,
            error=outcome,
            policy=self._policy,
            jitter=random.random(),
        )

    def hand_back(self, job: Job) -> JobState | None:
        """Queue the job again, the attempt not counted."""
        return lifecycle.release(
            self._app.db,
            self._app.bus,
            job_id=job.id,
            public_id=job.public_id,
            attempt=job.attempt,
            worker=self._worker,
        )

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
                pool=self._pool,
                host=self._host,
                pid=self._pid,
                profile=self._app.profile.name,
                lease_s=self._lease_s,
            )
            workers.renew(
                uow, worker=self._worker, lease_s=self._lease_s, state=state, detail=detail
            )
