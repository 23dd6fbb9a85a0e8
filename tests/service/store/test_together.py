"""Several processes at once submit, reorder, cancel, claim and settle: no counter is off after."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders import make_new_job, make_result
from tests.databases import empty_database
from vidmill.domain.job import Job, Lane
from vidmill.store import accounts, jobs, ledger
from vidmill.store.session import Database, UnitOfWork, open_database

NUM_PROCESSES = 3
THREADS_EACH = 3
STEPS = 40


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Database]]:
    """One database, opened as by several processes; two tenants, two users each."""
    url = empty_database(tmp_path)
    dbs = [open_database(url, connections=4) for _ in range(NUM_PROCESSES)]

    def fill(uow: UnitOfWork) -> None:
        for number in (1, 2):
            accounts.ensure_tenant(uow, f"tenant-{number}", cap_running=3)
        for number in (1, 2):
            accounts.ensure_user(uow, number, "second")

    dbs[0].write(fill)
    yield dbs
    for db in dbs:
        db.close()


class Client:
    """A thread that does one thing after another, to its own jobs or to whatever it claims."""

    def __init__(self, db: Database, number: int) -> None:
        self.db = db
        self.rng = random.Random(number)
        self.worker = f"w{number}"
        self.mine: list[Job] = []

    def work(self) -> None:
        acts = (self.submit, self.submit, self.claim_and_settle, self.cancel, self.run_next)
        for _ in range(STEPS):
            self.rng.choice(acts)()

    def submit(self) -> None:
        tenant_id = self.rng.randint(1, 2)
        new = make_new_job(
            tenant_id=tenant_id,
            user_id=tenant_id + 2 * self.rng.randint(0, 1),
            lane=self.rng.choice((Lane.STANDARD, Lane.BATCH)),
            price_credits=5,
        )
        self.mine.append(self.db.write(lambda uow: jobs.insert(uow, new)))

    def claim_and_settle(self) -> None:
        job = self.db.write(
            lambda uow: jobs.claim(
                uow, pool="main", worker=self.worker, profile="tiny", lease_s=30.0
            )
        )
        if job is None:
            return
        outcomes = (jobs.Succeeded(result=make_result()), jobs.Requeued())
        outcome: jobs.Outcome = self.rng.choice(outcomes)
        settled = self.db.write(
            lambda uow: jobs.settle(
                uow, job_id=job.id, attempt=job.attempt, worker=self.worker, outcome=outcome
            )
        )
        assert settled is not None

    def cancel(self) -> None:
        if self.mine:
            job = self.rng.choice(self.mine)
            self.db.write(lambda uow: jobs.request_cancel(uow, job.public_id, job.tenant_id))

    def run_next(self) -> None:
        if self.mine:
            job = self.rng.choice(self.mine)
            self.db.write(lambda uow: jobs.run_next(uow, job.public_id, job.tenant_id, job.user_id))


def test_counters_and_ledger_are_exact_afterwards(processes: list[Database]) -> None:
    clients = [
        Client(processes[number % NUM_PROCESSES], number)
        for number in range(NUM_PROCESSES * THREADS_EACH)
    ]
    with ThreadPoolExecutor(len(clients)) as threads:
        for _ in threads.map(Client.work, clients):
            pass
    db = processes[0]
    assert not db.read(jobs.find_drift)
    assert db.read(ledger.audit) == []
