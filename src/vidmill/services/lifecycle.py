"""How a run ends: completed, failed or given back. One transaction each, then events and tickets.

In that transaction the engine's breaker hears of it too, after the job is locked and before the
flows are, as a claim also asks the breaker first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import (
    BadOutput,
    EngineFailed,
    ModelInvalid,
    PoisonJob,
    RenderCrashed,
    VidmillError,
)
from vidmill.domain.job import Job, JobState, RetryPolicy, decide
from vidmill.domain.ports import EventBus, TicketSource
from vidmill.store import attempts, breakers, jobs
from vidmill.store.breakers import BreakerPolicy
from vidmill.store.session import Database, UnitOfWork

ENGINE_TROUBLE = (EngineFailed, RenderCrashed, ModelInvalid, BadOutput)
"""What speaks against a pool's engine. A lost machine, a time limit or a full disk do not."""


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """The ends of runs. Each takes the job as it was claimed, which is the fence.

    Each returns the state reached, or None to a zombie: the run is somebody else's by now, and
    whatever it made is to be deleted.
    """

    db: Database
    bus: EventBus
    tickets: TicketSource
    retry: RetryPolicy
    breaker: BreakerPolicy

    def complete(self, job: Job, result: ClipResult) -> JobState | None:
        """Record the clip of a run."""

        def choose(uow: UnitOfWork, held: Job) -> jobs.Outcome:
            breakers.record_success(uow, pool=held.pool, profile=held.spec.profile)
            return jobs.Succeeded(result=result)

        return self._settle(job, choose)

    def fail(self, job: Job, error: VidmillError, *, jitter: float) -> JobState | None:
        """Record that a run ended with *error*: tried again, failed, or cancelled (`JobCancelled`).

        *jitter*, of the delay, is uniform in 0..1.
        """

        def choose(uow: UnitOfWork, held: Job) -> jobs.Outcome:
            if isinstance(error, ENGINE_TROUBLE):
                self._blame_engine(uow, held, error)
            told = self._poison(uow, held) if isinstance(error, RenderCrashed) else None
            decision = decide(
                told or error,
                attempt=held.attempt,
                max_attempts=held.max_attempts,
                policy=self.retry,
                jitter=jitter,
            )
            return jobs.outcome_of(told or error, decision, now=uow.now)

        return self._settle(job, choose)

    def release(self, job: Job) -> JobState | None:
        """Give the job of a run back to the queue, at once and without counting it: a drain."""
        return self._settle(job, lambda _uow, _held: jobs.Requeued())

    def _settle(
        self, job: Job, choose: Callable[[UnitOfWork, Job], jobs.Outcome]
    ) -> JobState | None:
        assert job.worker is not None, "a claimed job names its worker"
        fence: dict[str, Any] = {"job_id": job.id, "attempt": job.attempt, "worker": job.worker}

        def work(uow: UnitOfWork) -> JobState | None:
            held = jobs.hold(uow, **fence)
            if held is None:
                return None
            settled = jobs.settle(uow, **fence, outcome=choose(uow, held))
            assert settled is not None, "the run is held"
            announce(uow, settled, bus=self.bus, tickets=self.tickets)
            return settled.state

        return self.db.write(work)

    def _blame_engine(self, uow: UnitOfWork, job: Job, error: VidmillError) -> None:
        breakers.record_failure(
            uow,
            pool=job.pool,
            profile=job.spec.profile,
            job_id=job.id,
            reason=f"{error.code}: {error}",
            policy=self.breaker,
        )

    def _poison(self, uow: UnitOfWork, job: Job) -> PoisonJob | None:
        """Return what to say of a job that has ended its render process once too often."""
        crashes = 1 + attempts.count(uow.conn, job.id, error_code=RenderCrashed.code)
        if crashes < self.retry.crash_max:
            return None
        return PoisonJob(
            f"The clip ended the render process {crashes} times and is not tried again;"
            " change the request."
        )


def announce(
    uow: UnitOfWork, settled: jobs.Settled, *, bus: EventBus, tickets: TicketSource
) -> None:
    """Once committed, tell watchers of every job that changed, and wake workers for new work."""
    for job in (settled.job, *settled.followers):
        uow.after_commit(partial(bus.publish, job.public_id, event_of(job)))
        if job.state is JobState.QUEUED:
            uow.after_commit(partial(tickets.publish, job.pool))


def stop(
    uow: UnitOfWork, task_id: str, tenant_id: int, *, bus: EventBus, tickets: TicketSource
) -> Job | None:
    """Cancel a job that waits at once, with whatever follows it; ask one that runs to stop.

    Returns the job, unchanged if it is over; None if there is none, or its owner is erasing it,
    which stops it too.
    """
    settled = jobs.request_cancel(uow, task_id, tenant_id)
    if settled is None:
        return None
    announce(uow, settled, bus=bus, tickets=tickets)
    if settled.state is JobState.RUNNING:
        uow.after_commit(partial(bus.cancel, settled.job.public_id, settled.job.attempt))
    return settled.job


def event_of(job: Job) -> Mapping[str, Any]:
    """Return what the bus carries about *job*."""
    return {
        "attempt": job.attempt,
        "state": job.state.value,
        "phase": job.phase.value,
        "progress": job.progress,
    }
