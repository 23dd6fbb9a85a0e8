"""What a tenant may run at once is never exceeded, however many claim at the same moment."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from tests.builders import make_new_job
from tests.claims import succeed
from tests.databases import empty_database
from vidmill.domain.job import Job
from vidmill.store import accounts, jobs
from vidmill.store.session import Database, UnitOfWork, open_database

POOLS = ("main", "vip", "batch")
CAP = 2
NUM_TENANTS = 3
JOBS_EACH = 20
"""Per tenant and pool."""

_RUNNING = text("SELECT count(*) FROM jobs WHERE tenant_id = :tenant AND state = 'running'")


def fill(uow: UnitOfWork) -> None:
    for number in range(1, NUM_TENANTS + 1):
        accounts.ensure_tenant(uow, f"tenant-{number}", cap_running=CAP)
    for pool in POOLS:
        for tenant_id in range(1, NUM_TENANTS + 1):
            for _ in range(JOBS_EACH):
                jobs.insert(uow, make_new_job(tenant_id=tenant_id, pool=pool))


def claim(uow: UnitOfWork, pool: str, worker: str) -> tuple[Job, int] | None:
    """Claim, and count in the same transaction what of the tenant runs then."""
    job = jobs.claim(uow, pool=pool, worker=worker, profile="tiny", lease_s=30.0)
    if job is None:
        return None
    return job, uow.conn.execute(_RUNNING, {"tenant": job.tenant_id}).scalar_one()


def work(db: Database, number: int) -> tuple[list[int], list[int]]:
    """Claim and finish until the pool is empty; return jobs, and what ran beside each."""
    pool, worker = POOLS[number % len(POOLS)], f"w{number}"
    done: list[int] = []
    beside: list[int] = []
    while True:
        found = db.write(lambda uow: claim(uow, pool, worker))
        if found is not None:
            job, running = found
            done.append(job.id)
            beside.append(running)
            succeed(db, job)
        elif not db.read(lambda conn: jobs.queue_depths(conn, pool)):
            return done, beside


def test_caps_hold_across_pools_whoever_claims(tmp_path: Path) -> None:
    with closing(open_database(empty_database(tmp_path))) as db:
        db.write(fill)
        with ThreadPoolExecutor(9) as threads:
            results = list(threads.map(lambda number: work(db, number), range(9)))
        done = Counter(job_id for ids, _ in results for job_id in ids)
        beside = [running for _, counts in results for running in counts]
        assert len(done) == len(POOLS) * NUM_TENANTS * JOBS_EACH
        assert set(done.values()) == {1}
        assert max(beside) <= CAP
        assert not db.read(jobs.find_drift)
