"""Claiming, and ending what was claimed, as a worker does."""

from tests.builders import make_result
from vidmill.domain.job import Job
from vidmill.store import jobs
from vidmill.store.claim import ClaimRules
from vidmill.store.session import Database

PATIENT = ClaimRules(batch_age_s=1e12)
"""No batch job ever ages."""


def claim(
    db: Database, *, pool: str = "main", worker: str = "w1", rules: ClaimRules = PATIENT
) -> Job | None:
    return db.write(
        lambda uow: jobs.claim(
            uow, pool=pool, worker=worker, profile="tiny", lease_s=30.0, rules=rules
        )
    )


def claim_some(db: Database, *, rules: ClaimRules = PATIENT) -> Job:
    job = claim(db, rules=rules)
    assert job is not None
    return job


def take(db: Database, worker: str = "w1") -> Job:
    """Let a worker take the best job of `main`, under the rules of production."""
    job = db.write(
        lambda uow: jobs.claim(uow, pool="main", worker=worker, profile="tiny", lease_s=30.0)
    )
    assert job is not None
    return job


def settle(db: Database, job: Job, outcome: jobs.Outcome) -> jobs.Settled:
    worker = job.worker or ""
    settled = db.write(
        lambda uow: jobs.settle(
            uow, job_id=job.id, attempt=job.attempt, worker=worker, outcome=outcome
        )
    )
    assert settled is not None
    return settled


def succeed(db: Database, job: Job) -> None:
    """End a run with a clip that cost just what was expected."""
    result = make_result(timings_s={"denoising": job.est_cost_s})
    settle(db, job, jobs.Succeeded(result=result))


def jain(shares: list[int]) -> float:
    """Return Jain's index of fairness: 1 = all alike, 1/n = one has it all."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
