"""A job: its states, the only moves between them, and what happens after an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from vidmill.domain.clip import ClipResult, ClipSpec
from vidmill.domain.errors import VidmillError


class JobState(StrEnum):
    QUEUED = "queued"
    DELAYED = "delayed"  # a retry waits for `not_before`, or its batch is paused
    FOLLOWING = "following"  # an identical job is on its way; this one ends as that one does
    RUNNING = "running"
    REVIEW = "review"  # finished, but a person must look first
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.DELAYED, JobState.CANCELLED}),
    JobState.DELAYED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.FOLLOWING: frozenset(
        {
            JobState.QUEUED,  # the job it followed was cancelled
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.SUCCEEDED,
            JobState.REVIEW,
            JobState.FAILED,
            JobState.DELAYED,
            JobState.CANCELLED,
            JobState.QUEUED,  # drain: the attempt is not counted
        }
    ),
    JobState.REVIEW: frozenset({JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, moves in TRANSITIONS.items() if not moves)


class WireStatus(StrEnum):
    """What callers see; `phase` carries the detail."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WIRE: Mapping[JobState, WireStatus] = {
    JobState.QUEUED: WireStatus.QUEUED,
    JobState.DELAYED: WireStatus.PROCESSING,
    JobState.FOLLOWING: WireStatus.QUEUED,  # until `services.tasks` looks at whom it follows
    JobState.RUNNING: WireStatus.PROCESSING,
    JobState.REVIEW: WireStatus.PROCESSING,
    JobState.SUCCEEDED: WireStatus.COMPLETED,
    JobState.FAILED: WireStatus.FAILED,
    JobState.CANCELLED: WireStatus.CANCELLED,
}


class Phase(StrEnum):
    """Where a job stands, in the order it passes through them."""

    WAITING = "waiting"
    STARTING = "starting"  # claimed, the engine is being handed the job
    ENCODING_TEXT = "encoding_text"
    DENOISING = "denoising"
    DECODING = "decoding"
    FINISHING = "finishing"  # retime, scale, encode
    STORING = "storing"
    RETRY_WAIT = "retry_wait"
    PAUSED = "paused"  # delayed until its batch goes on
    REVIEW = "review"
    DONE = "done"
    ERASING = "erasing"  # over, and its owner is deleting it: nobody is answered with it any more


PHASE_SPAN: Mapping[Phase, tuple[float, float]] = {
    Phase.STARTING: (0.0, 0.0),
    Phase.ENCODING_TEXT: (0.0, 0.02),
    Phase.DENOISING: (0.02, 0.82),
    Phase.DECODING: (0.82, 0.90),
    Phase.FINISHING: (0.90, 0.98),
    Phase.STORING: (0.98, 0.99),
}
"""Share of `progress` each running phase covers; 1.0 is reached by success alone."""


def overall_progress(phase: Phase, done: int, total: int) -> float:
    """Return progress 0..1 of a whole job, given *done* of *total* units of its phase."""
    start, end = PHASE_SPAN[phase]
    share = min(1.0, done / total) if total else 0.0
    return round(start + (end - start) * share, 4)


class Lane(IntEnum):
    """Order inside a pool. The value is stored; lower is served more."""

    VIP = 0
    STANDARD = 1
    BATCH = 2


LANE_WEIGHT: Mapping[Lane, int] = {Lane.VIP: 100, Lane.STANDARD: 10, Lane.BATCH: 1}
"""Shares of claims while all lanes have work: nobody starves, VIP pays at most a tenth."""

MAX_ATTEMPTS = 4
"""One run and up to three retries (SPEC queue.retry)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row, the only truth about a piece of work. Instants are Unix seconds, database clock.

    Attributes:
        id: Internal, increasing; the order inside a flow.
        public_id: `t2v_` and a UUIDv7; the wire's `task_id`.
        attempt: Runs begun, and the fencing token of the present one; 0 = never claimed.
        max_attempts: Grows by one at each drain, so that a rolling restart costs no retry.
        request: The caller's request as accepted, echoed on the task.
        parent: `public_id` of the job that this one repeats.
        est_cost_s: Expected GPU seconds, what fair share is charged before the truth is known.
        user_id: Whose it is within the tenant; users of a tenant share its turn fairly.
        rank: Place among the user's own queued jobs; lower is sooner, then older is sooner.
        price_credits: Held now, captured on success, released otherwise.
        cache_key: What identical requests of the tenant have in common; None = opted out.
        leader_id: The job whose end this one shares, while it is `following`.
        files_of: `public_id` of the job whose run made the files; None = its own.
    """

    id: int
    public_id: str
    tenant_id: int
    pool: str
    lane: Lane
    state: JobState
    attempt: int
    max_attempts: int
    spec: ClipSpec
    request: Mapping[str, Any]
    est_cost_s: float
    submitted_at: float
    phase: Phase = Phase.WAITING
    progress: float = 0.0
    not_before: float | None = None
    worker: str | None = None
    lease_until: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    is_cancel_requested: bool = False
    result: ClipResult | None = None
    error_code: str | None = None
    error_message: str | None = None
    client_reference: str | None = None
    parent: str | None = None
    user_id: int = 0
    rank: int = 0
    price_credits: int = 0
    cache_key: str | None = None
    leader_id: int | None = None
    files_of: str | None = None

    @property
    def status(self) -> WireStatus:
        """What callers see: a job that ran before never falls back to queued."""
        waits = self.state is JobState.QUEUED or self.phase is Phase.PAUSED
        if waits:
            return WireStatus.PROCESSING if self.attempt else WireStatus.QUEUED
        return WIRE[self.state]

    @property
    def is_paused(self) -> bool:
        """Whether nobody may claim it until its batch goes on."""
        return self.phase is Phase.PAUSED

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter. `base_s` 10 and `cap_s` 600 are SPEC queue.retry.

    Attributes:
        crash_max: Runs that may end the render process; then the job is poison.
    """

    base_s: float = 10.0
    cap_s: float = 600.0
    crash_max: int = 3

    def delay_s(self, attempt: int, jitter: float) -> float:
        """Return the wait after run number *attempt* (1-based); *jitter* is uniform in 0..1."""
        exponential = min(self.cap_s, self.base_s * 2.0 ** (attempt - 1))
        return min(self.cap_s, exponential * (0.5 + jitter))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a run that ended badly."""

    state: JobState
    delay_s: float = 0.0


def decide(
    error: VidmillError, *, attempt: int, max_attempts: int, policy: RetryPolicy, jitter: float
) -> Decision:
    """Say what follows *error* in run *attempt*: cancelled, delayed for a retry, or failed."""
    if error.code == "cancelled":
        return Decision(state=JobState.CANCELLED)
    if error.is_retryable and attempt < max_attempts:
        return Decision(state=JobState.DELAYED, delay_s=policy.delay_s(attempt, jitter))
    return Decision(state=JobState.FAILED)
