"""Ending a run, or a job's wait: the fenced update and its outcomes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import bindparam, text, update

from vidmill.domain.clip import ClipResult, ClipSpec
from vidmill.domain.job import Job, JobState, Phase
from vidmill.store.models import jobs
from vidmill.store.rows import to_job
from vidmill.store.unit import UnitOfWork

GPU_PHASES = ("encoding_text", "denoising", "decoding")
"""Phases that hold the GPU; what a tenant is charged and an ETA is learnt from."""

COST_MIN_S = 0.001
"""No clip is free: fair shares and forecasts divide by cost."""

LEARNING_RATE = 0.2
"""Weight of the newest run in the learnt cost: follows a driver update in about ten clips."""


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
_CORRECT = text("""
    UPDATE flows
       SET vtime = vtime + :excess_s / (SELECT weight FROM tenants WHERE id = :tenant)
     WHERE pool = :pool AND lane = :lane AND tenant_id = :tenant""")
_LEARN = text("""
    INSERT INTO cost_stats (profile, width_px, height_px, num_frames, steps, mean_s, samples)
         VALUES (:profile, :width_px, :height_px, :num_frames, :steps, :seconds, 1)
    ON CONFLICT (profile, width_px, height_px, num_frames, steps) DO UPDATE SET
         mean_s = cost_stats.mean_s + (excluded.mean_s - cost_stats.mean_s)
                * CASE WHEN cost_stats.samples < :few THEN 1.0 / (cost_stats.samples + 1)
                       ELSE :rate END,
         samples = cost_stats.samples + 1""")


def settle(
    uow: UnitOfWork, *, job_id: int, attempt: int, worker: str, outcome: Outcome
) -> JobState | None:
    """End run number *attempt* of a job; return the state reached, or None to a zombie.

    None means that the run is no longer the caller's: nothing was written, and he must stop and
    delete what he made. A run that would go on, though its cancellation was requested, ends
    cancelled.
    """
    fence = {"job": job_id, "number": attempt, "by": worker}
    row = _move(uow, fence, outcome)
    if row is None and isinstance(outcome, _GOES_ON):
        outcome = Cancelled(code=outcome.code, message=outcome.message)
        row = _move(uow, fence, outcome)
    if row is None:
        return None
    seconds = max(0.0, min(uow.now, row.lease_until) - row.started_at)
    _end_attempt(uow, row, outcome, seconds)
    gpu_s = _gpu_seconds(outcome, seconds)
    excess = {"excess_s": gpu_s - row.est_cost_s, "tenant": row.tenant_id}
    uow.conn.execute(_CORRECT, {**excess, "pool": row.pool, "lane": row.lane})
    if isinstance(outcome, Succeeded):
        _learn(uow, ClipSpec.from_json(row.spec), gpu_s)
    return outcome.state


_CANCEL_WAITING = (
    update(jobs)
    .where(
        jobs.c.public_id == bindparam("public"),
        jobs.c.tenant_id == bindparam("tenant"),
        jobs.c.state.in_([JobState.QUEUED, JobState.DELAYED]),
    )
    .values(state=JobState.CANCELLED, phase=Phase.DONE, finished_at=bindparam("now"))
    .returning(jobs)
)
_FLAG = (
    update(jobs)
    .where(
        jobs.c.public_id == bindparam("public"),
        jobs.c.tenant_id == bindparam("tenant"),
        jobs.c.state == JobState.RUNNING,
    )
    .values(is_cancel_requested=True)
    .returning(jobs)
)
_FIND = jobs.select().where(
    jobs.c.public_id == bindparam("public"), jobs.c.tenant_id == bindparam("tenant")
)


def request_cancel(uow: UnitOfWork, public_id: str, tenant_id: int) -> Job | None:
    """Cancel a waiting job at once, flag a running one; return it as it is now, None if unknown.

    A job in any other state comes back unchanged: the caller decides what to say.
    """
    key = {"public": public_id, "tenant": tenant_id}
    steps = ((_CANCEL_WAITING, {**key, "now": uow.now}), (_FLAG, key), (_FIND, key))
    for statement, values in steps:
        row = uow.conn.execute(statement, values).first()
        if row is not None:
            return to_job(row)
    return None


def _move(uow: UnitOfWork, fence: dict[str, Any], outcome: Outcome) -> Any:
    """Make the fenced update; return the row, or None when this run may not do so."""
    query = update(jobs).where(
        jobs.c.id == bindparam("job"),
        jobs.c.attempt == bindparam("number"),
        jobs.c.worker == bindparam("by"),
        jobs.c.state == JobState.RUNNING,
    )
    if isinstance(outcome, _GOES_ON):
        query = query.where(jobs.c.is_cancel_requested.is_(False))
    query = query.values(state=outcome.state, **outcome.values(uow.now)).returning(jobs)
    return uow.conn.execute(query, fence).first()


def _end_attempt(uow: UnitOfWork, row: Any, outcome: Outcome, seconds: float) -> None:
    values = {"job": row.id, "attempt": row.attempt, "now": uow.now, "seconds": seconds}
    error = (None, None) if isinstance(outcome, Succeeded) else (outcome.code, outcome.message)
    values |= {"code": error[0], "message": error[1], "outcome": outcome.state}
    uow.conn.execute(_END_ATTEMPT, values)


def _gpu_seconds(outcome: Outcome, seconds: float) -> float:
    """Return what the run cost: as measured by phase where it is known, else its whole time."""
    if not isinstance(outcome, Succeeded):
        return seconds
    timings = outcome.result.timings_s
    measured = sum(timings.get(phase, 0.0) for phase in GPU_PHASES)
    return max(COST_MIN_S, measured or seconds)


def _learn(uow: UnitOfWork, spec: ClipSpec, seconds: float) -> None:
    key = {"profile": spec.profile, "num_frames": spec.num_frames, "steps": spec.steps}
    key |= {"width_px": spec.native.width_px, "height_px": spec.native.height_px}
    rates = {"rate": LEARNING_RATE, "few": 1 / LEARNING_RATE}
    uow.conn.execute(_LEARN, {**key, **rates, "seconds": seconds})
