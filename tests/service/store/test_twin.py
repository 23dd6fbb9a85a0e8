"""The simulation's twin of the claim, against the claim: the same choices from the same queues."""

import random
from typing import Any

import pytest

from bench.twin import PoolTwin, Tenant, Work
from tests.builders import FakeClock, make_job, make_result
from vidmill.domain.job import Job, Lane
from vidmill.store import accounts, jobs
from vidmill.store.session import Database

ROUNDS = 400
BATCH_AGE_S = 1800.0
CAP = 3


def make_user(db: Database, tenant_id: int, name: str, weight: float) -> int:
    made = db.write(lambda uow: accounts.ensure_user(uow, tenant_id, name, weight=weight))
    return made.id


def claim(db: Database) -> Job | None:
    return db.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w1", profile="tiny", lease_s=1e6)
    )


@pytest.mark.sqlite
@pytest.mark.parametrize("seed", range(3))
def test_twin_claims_what_the_store_claims(db: Database, clock: FakeClock, seed: int) -> None:
    rng = random.Random(seed)
    db.write(lambda uow: accounts.ensure_tenant(uow, "tenant-2", cap_running=CAP))
    tenants = {number: Tenant() for number in (1, 2, 3)}
    tenants[2].cap_running = CAP
    users: list[tuple[int, int]] = []
    for tenant_id, tenant in tenants.items():
        for name, weight in (("ann", 1.0), ("bob", 2.0)):
            user_id = make_user(db, tenant_id, name, weight)
            tenant.user_weights[user_id] = weight
            users.append((tenant_id, user_id))
    twin = PoolTwin(tenants, batch_age_s=BATCH_AGE_S)
    running: list[tuple[Job, Work]] = []
    claimed: list[int | None] = []
    foreseen: list[int | None] = []

    for _ in range(ROUNDS):
        for _ in range(rng.choice((0, 0, 1, 1, 4))):
            tenant_id, user_id = rng.choice(users)
            values: dict[str, Any] = {"tenant_id": tenant_id, "user_id": user_id}
            values |= {"lane": rng.choice(list(Lane)), "est_cost_s": rng.choice((5.0, 10.0, 32.0))}
            job = make_job(db, **values)
            twin.add(Work(id=job.id, submitted_at=clock.now, pool="main", **values))
        job_taken, work_taken = claim(db), twin.claim(clock.now)
        claimed.append(job_taken.id if job_taken else None)
        foreseen.append(work_taken.id if work_taken else None)
        if job_taken and work_taken:
            running.append((job_taken, work_taken))
        clock.advance(rng.choice((1.0, 20.0, 300.0)))
        if running and rng.random() < 0.8:
            settle(db, twin, *running.pop(rng.randrange(len(running))), rng.choice((4.0, 12.0)))

    assert claimed == foreseen
    assert sum(job_id is not None for job_id in claimed) > ROUNDS / 2


def settle(db: Database, twin: PoolTwin, job: Job, work: Work, cost_s: float) -> None:
    outcome = jobs.Succeeded(result=make_result(timings_s={"denoising": cost_s}))
    settled = db.write(
        lambda uow: jobs.settle(
            uow, job_id=job.id, attempt=job.attempt, worker="w1", outcome=outcome
        )
    )
    assert settled is not None
    twin.settle(work, cost_s)
