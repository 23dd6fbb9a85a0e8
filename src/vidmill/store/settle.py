"""Ending a run, or a job's wait: the fenced update, its outcomes, and what followers become.

Rows are locked in the order of `store.locks`: the run's, its followers', the flows the run is
charged to, then what the triggers touch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import bindparam, select, text, update

from vidmill.domain.clip import ClipResult
from vidmill.domain.errors import WorkerLost
from vidmill.domain.job import Job, JobState, Phase
from vidmill.store import cache, learning
from vidmill.store.models import IS_SHOWN, jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork

GPU_PHASES = ("encoding_text", "denoising", "decoding")
"""Phases that hold the GPU; what a tenant is charged and an ETA is learnt from."""

COST_MIN_S = 0.001
"""No clip is free: fair shares and forecasts divide by cost."""


@dataclass(frozen=True, kw_only=True)
class Succeeded:
    result: ClipResult
    state: ClassVar[JobState] = JobState.SUCCEEDED

    def values(self, now: float) -> dict[str, Any]:
        result = self.result.to_json()
        return {"result": result, "phase": Phase.DONE, "progress": 1.0, "finished_at": now} | _CLEAN


@dataclass(frozen=True, kw_only=True)
class Failed:
    code: str
    message: str
    state: ClassVar[JobState] = JobState.FAILED

    def values(self, now: float) -> dict[str, Any]:
        error = {"error_code": self.code, "error_message": self.message}
        return {"phase": Phase.DONE, "finished_at": now, **error}


@dataclass(frozen=True, kw_only=True)
class Delayed:
    """Will be tried again at *not_before*, Unix seconds."""

    not_before: float
    code: str
    message: str
    state: ClassVar[JobState] = JobState.DELAYED

    def values(self, now: float) -> dict[str, Any]:  # noqa: ARG002  one signature for all outcomes
        error = {"error_code": self.code, "error_message": self.message}
        return {"phase": Phase.RETRY_WAIT, "not_before": self.not_before, **error}


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    code: str | None = None
    message: str | None = None
    state: ClassVar[JobState] = JobState.CANCELLED

    def values(self, now: float) -> dict[str, Any]:
        return {"phase": Phase.DONE, "finished_at": now}


@dataclass(frozen=True, kw_only=True)
class Requeued:
    """Given back to the queue, at once.

    Attributes:
        is_counted: False for a drain, which costs no retry.
    """

    is_counted: bool = False
    code: str | None = None
    message: str | None = None
    state: ClassVar[JobState] = JobState.QUEUED

    def values(self, now: float) -> dict[str, Any]:  # noqa: ARG002  one signature for all outcomes
        error = {"error_code": self.code, "error_message": self.message}
        more = {} if self.is_counted else {"max_attempts": jobs.c.max_attempts + 1}
        return {"phase": Phase.WAITING, **error, **more}


Outcome = Succeeded | Failed | Delayed | Cancelled | Requeued

_CLEAN: dict[str, Any] = {"error_code": None, "error_message": None}
_GOES_ON = (Delayed, Requeued)

_END_ATTEMPT = text("""
    UPDATE attempts SET ended_at = :now, outcome = :outcome, seconds = :seconds,
           error_code = :code, error_message = :message
     WHERE job_id = :job AND attempt = :attempt""")
_CORRECT_FLOW = text("""
    UPDATE flows
       SET vtime = vtime + :excess_s / (SELECT weight FROM tenants WHERE id = :tenant)
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant""")
_CORRECT_USER_FLOW = text("""
    UPDATE user_flows
       SET vtime = vtime + :excess_s / coalesce((SELECT weight FROM users WHERE id = :user), 1.0)
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant AND user_id = :user""")
_RUN = (
    jobs.c.id == bindparam("job"),
    jobs.c.attempt == bindparam("number"),
    jobs.c.worker == bindparam("by"),
    jobs.c.state == JobState.RUNNING,
)
"""The fence: every write of a worker says whose run it means."""
_HOLD = select(jobs).where(*_RUN).with_for_update()


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a job became, and with it those that followed it.

    Attributes:
        followers: Ended as *job* did; or, *job* being cancelled, the one queued in its place.
    """

    job: Job
    followers: tuple[Job, ...] = ()

    @property
    def state(self) -> JobState:
        return self.job.state


def hold(uow: UnitOfWork, *, job_id: int, attempt: int, worker: str) -> Job | None:
    """Return the job of a run that is still *worker*'s, locked until the transaction ends."""
    row = uow.conn.execute(_HOLD, {"job": job_id, "number": attempt, "by": worker}).first()
    return None if row is None else to_job(row)


def settle(
    uow: UnitOfWork, *, job_id: int, attempt: int, worker: str, outcome: Outcome
) -> Settled | None:
    """End run number *attempt* of a job; return what became of it, or None to a zombie.

    None means that the run is no longer the caller's: nothing was written, and he must stop and
    delete what he made. A run that would go on, though its cancellation was requested, ends
    cancelled.
    """
    fence = {"job": job_id, "number": attempt, "by": worker}
    run = uow.conn.execute(_HOLD, fence).first()
    if run is None:
        return None
    if run.is_cancel_requested and isinstance(outcome, _GOES_ON):
        outcome = Cancelled(code=outcome.code, message=outcome.message)
    followers = () if isinstance(outcome, _GOES_ON) else cache.lock_followers(uow, run)
    if isinstance(outcome, Cancelled):
        cache.lock_succession(uow, run, followers)
    seconds = max(0.0, min(uow.now, run.lease_until) - run.started_at)
    gpu_s = _gpu_seconds(outcome, seconds)
    job = _move(uow, fence, outcome)
    _correct(uow, run, excess_s=gpu_s - run.est_cost_s)
    _end_attempt(uow, job, outcome, seconds)
    if isinstance(outcome, Succeeded):
        learning.learn(uow, pool=job.pool, spec=job.spec, gpu_s=gpu_s, total_s=seconds)
    return _settled(uow, job, followers)


_BY_PUBLIC_ID = (
    select(jobs)
    .where(
        jobs.c.public_id == bindparam("public"), jobs.c.tenant_id == bindparam("tenant"), IS_SHOWN
    )
    .with_for_update()
)
_CANCELLED = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(state=JobState.CANCELLED, phase=Phase.DONE, finished_at=bindparam("now"))
    .returning(jobs)
)
_FLAGGED = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(is_cancel_requested=True)
    .returning(jobs)
)
_WAITING = frozenset({JobState.QUEUED, JobState.DELAYED, JobState.FOLLOWING})


def lock(uow: UnitOfWork, public_id: str, tenant_id: int) -> None:
    """Hold a job that this transaction may cancel once it has locked more (see `locks`)."""
    uow.conn.execute(_BY_PUBLIC_ID, {"public": public_id, "tenant": tenant_id})


def request_cancel(uow: UnitOfWork, public_id: str, tenant_id: int) -> Settled | None:
    """Cancel a waiting job at once, flag a running one; None if there is no such job.

    A job in any other state comes back unchanged: the caller decides what to say.
    """
    row = uow.conn.execute(_BY_PUBLIC_ID, {"public": public_id, "tenant": tenant_id}).first()
    if row is None:
        return None
    if row.state == JobState.RUNNING:
        return Settled(job=to_job(uow.conn.execute(_FLAGGED, {"job": row.id}).one()))
    if row.state not in _WAITING:
        return Settled(job=to_job(row))
    followers = cache.lock_followers(uow, row)
    cache.lock_succession(uow, row, followers)
    job = to_job(uow.conn.execute(_CANCELLED, {"job": row.id, "now": uow.now}).one())
    return _settled(uow, job, followers)


def _settled(uow: UnitOfWork, job: Job, followers: Sequence[Any]) -> Settled:
    step = _FOLLOW.get(job.state)
    return Settled(job=job, followers=step(uow, job, followers) if step else ())


_FOLLOW = {
    JobState.SUCCEEDED: cache.end_alike,
    JobState.FAILED: cache.end_alike,
    JobState.CANCELLED: cache.succeed,
}


def _correct(uow: UnitOfWork, run: Any, *, excess_s: float) -> None:
    """Charge what the run took more, or less, than was expected when it was claimed."""
    flow = {"pool": run.pool, "lane": run.lane, "tenant": run.tenant_id}
    uow.conn.execute(_CORRECT_FLOW, {**flow, "excess_s": excess_s})
    uow.conn.execute(_CORRECT_USER_FLOW, {**flow, "excess_s": excess_s, "user": run.user_id})


def _move(uow: UnitOfWork, fence: dict[str, Any], outcome: Outcome) -> Job:
    query = update(jobs).where(*_RUN).values(state=outcome.state, **outcome.values(uow.now))
    return to_job(uow.conn.execute(query.returning(jobs), fence).one())


def _end_attempt(uow: UnitOfWork, job: Job, outcome: Outcome, seconds: float) -> None:
    values: dict[str, Any] = {"job": job.id, "attempt": job.attempt, "now": uow.now}
    error = (None, None) if isinstance(outcome, Succeeded) else (outcome.code, outcome.message)
    values |= {"code": error[0], "message": error[1], "outcome": outcome.state}
    values["seconds"] = seconds
    uow.conn.execute(_END_ATTEMPT, values)


def _gpu_seconds(outcome: Outcome, seconds: float) -> float:
    """Return what the run cost: as measured by phase where it is known, else its whole time.

    A machine that vanished is nobody's doing: charging for it, up to the lease's end, would put its
    tenant behind all others for as long.
    """
    if not isinstance(outcome, Succeeded):
        return 0.0 if outcome.code == WorkerLost.code else seconds
    timings = outcome.result.timings_s
    measured = sum(timings.get(phase, 0.0) for phase in GPU_PHASES)
    return max(COST_MIN_S, measured or seconds)
