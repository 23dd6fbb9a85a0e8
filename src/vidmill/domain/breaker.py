"""The circuit breaker of a pool: when it rests, whom it lets through, what closes it.

It counts *different* jobs in a row whose run the engine failed: one bad job that is tried four
times says nothing about the pool.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"  # nothing is claimed before `retry_at`
    HALF_OPEN = "half_open"  # one job is being tried


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy:
    """When a pool rests and for how long; the defaults are those of the settings."""

    failures: int = 5
    rest_s: float = 30.0
    rest_cap_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """One model profile in one pool. Instants are Unix seconds, database clock.

    Attributes:
        failed_jobs: The different jobs the engine failed since it last succeeded.
        reason: What the last of them said.
        rest_s: The present rest, 0 while closed.
        probe_job_id: The job that was let through to try.
    """

    pool: str
    profile: str
    state: BreakerState = BreakerState.CLOSED
    failed_jobs: tuple[int, ...] = ()
    reason: str = ""
    opened_at: float | None = None
    retry_at: float | None = None
    rest_s: float = 0.0
    probe_job_id: int | None = None

    def after_failure(
        self, job_id: int, *, reason: str, now: float, policy: BreakerPolicy
    ) -> "Breaker":
        """Return the breaker after the engine failed *job_id*.

        While it rests, only the probe's failure says something new: the others began before.
        """
        is_probe = self.state is BreakerState.HALF_OPEN and job_id == self.probe_job_id
        if is_probe:
            rest_s = min(policy.rest_cap_s, self.rest_s * 2.0)
            return _opened(self, rest_s, reason=reason, now=now)
        if self.state is not BreakerState.CLOSED or job_id in self.failed_jobs:
            return self
        counted = replace(self, failed_jobs=(*self.failed_jobs, job_id), reason=reason)
        if len(counted.failed_jobs) < policy.failures:
            return counted
        return _opened(counted, policy.rest_s, reason=reason, now=now)


def _opened(breaker: Breaker, rest_s: float, *, reason: str, now: float) -> Breaker:
    return replace(
        breaker,
        state=BreakerState.OPEN,
        reason=reason,
        opened_at=now,
        retry_at=now + rest_s,
        rest_s=rest_s,
        probe_job_id=None,
    )


def may_claim(state: BreakerState, *, retry_at: float | None, is_probing: bool, now: float) -> bool:
    """Say whether a job may be claimed: freely while closed, else one at a time after the rest.

    *is_probing* while the job let through is being run. One that ended without a verdict (its
    machine vanished, somebody cancelled it) no longer is, and another may go.
    """
    if state is BreakerState.CLOSED:
        return True
    return not is_probing and retry_at is not None and retry_at <= now
