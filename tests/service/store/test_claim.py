"""Claims: who is next, and that nobody gets a job twice."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders import FakeClock, make_database, make_job, make_new_job
from tests.databases import empty_database
from vidmill.domain.job import Job, JobState, Lane, Phase
from vidmill.store import accounts, jobs
from vidmill.store.session import Database, UnitOfWork, open_database


def claim(db: Database, *, pool: str = "main", worker: str = "w1") -> Job | None:
    return db.write(
        lambda uow: jobs.claim(uow, pool=pool, worker=worker, profile="tiny", lease_s=30.0)
    )


def claim_some(db: Database) -> Job:
    job = claim(db)
    assert job is not None
    return job


def finish(db: Database, job: Job) -> None:
    outcome = jobs.Cancelled()
    assert db.write(
        lambda uow: jobs.settle(
            uow, job_id=job.id, attempt=job.attempt, worker=job.worker or "", outcome=outcome
        )
    )


def tenants_served(db: Database, count: int) -> list[int]:
    return [claim_some(db).tenant_id for _ in range(count)]


def test_empty_queue_gives_nothing(db: Database) -> None:
    assert claim(db) is None


def test_claim_starts_an_attempt_with_a_lease(db: Database, clock: FakeClock) -> None:
    waiting = make_job(db)
    clock.advance(5.0)
    job = claim_some(db)
    assert job.public_id == waiting.public_id
    assert (job.state, job.attempt, job.worker) == (JobState.RUNNING, 1, "w1")
    assert (clock.now, clock.now + 30.0) == (job.started_at, job.lease_until)
    assert (job.phase, job.progress) == (Phase.STARTING, 0.0)


def test_claim_returns_what_was_submitted(db: Database) -> None:
    waiting = make_job(db, client_reference="order 7", request={"prompt": "一个红色的球"})
    job = claim_some(db)
    assert waiting.spec == job.spec
    assert waiting.request == job.request
    assert waiting.client_reference == job.client_reference


def test_oldest_job_of_a_tenant_is_first(db: Database) -> None:
    ids = [make_job(db).id for _ in range(5)]
    assert ids == [claim_some(db).id for _ in range(5)]


def test_a_pool_serves_only_its_own_jobs(db: Database) -> None:
    make_job(db, pool="vip")
    assert claim(db, pool="main") is None
    assert claim(db, pool="vip") is not None


def test_tenants_take_turns_whatever_they_dump(db: Database) -> None:
    for tenant_id in (1, 1, 1, 1, 1, 1, 2, 2, 3, 3):
        make_job(db, tenant_id=tenant_id)
    assert tenants_served(db, 10) == [1, 2, 3, 1, 2, 3, 1, 1, 1, 1]


def test_twice_the_weight_is_twice_the_share(db: Database) -> None:
    db.write(lambda uow: accounts.ensure_tenant(uow, "default", weight=2.0))
    for tenant_id in [1] * 30 + [2] * 30:
        make_job(db, tenant_id=tenant_id)
    assert Counter(tenants_served(db, 30)) == {1: 20, 2: 10}


def test_costly_clips_count_for_more(db: Database) -> None:
    for _ in range(20):
        make_job(db, tenant_id=1, est_cost_s=30.0)
        make_job(db, tenant_id=2, est_cost_s=10.0)
    assert Counter(tenants_served(db, 20)) == {1: 5, 2: 15}


def test_idle_tenant_comes_back_without_credit(db: Database) -> None:
    for _ in range(40):
        make_job(db, tenant_id=1)
    tenants_served(db, 20)
    for _ in range(20):
        make_job(db, tenant_id=2)
    assert Counter(tenants_served(db, 20)) == {1: 10, 2: 10}


def test_busy_tenant_is_charged_what_his_run_really_took(db: Database, clock: FakeClock) -> None:
    for tenant_id in (1, 1, 2, 2, 2, 2):
        make_job(db, tenant_id=tenant_id, est_cost_s=10.0)
    first = claim_some(db)
    clock.advance(25.0)
    finish(db, first)
    assert tenants_served(db, 5) == [2, 2, 2, 1, 2]


def test_lanes_share_by_weight_and_none_starves(db: Database) -> None:
    db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_running=1000))
    for lane in Lane:
        for _ in range(222):
            make_job(db, lane=lane)
    served = Counter(claim_some(db).lane for _ in range(222))
    assert served == {Lane.VIP: 200, Lane.STANDARD: 20, Lane.BATCH: 2}


def test_lane_that_was_empty_comes_back_without_credit(db: Database) -> None:
    for _ in range(60):
        make_job(db, lane=Lane.STANDARD)
    for _ in range(30):
        claim_some(db)
    for _ in range(30):
        make_job(db, lane=Lane.BATCH)
    served = Counter(claim_some(db).lane for _ in range(22))
    assert served == {Lane.STANDARD: 20, Lane.BATCH: 2}


def test_first_job_of_a_new_vip_lane_is_next(db: Database) -> None:
    for _ in range(20):
        make_job(db)
    for _ in range(7):
        claim_some(db)
    make_job(db, lane=Lane.VIP)
    assert Lane.VIP in {claim_some(db).lane for _ in range(2)}


def test_tenant_at_his_cap_waits_and_others_go_on(db: Database) -> None:
    db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_running=2))
    for tenant_id in (1, 1, 1, 2):
        make_job(db, tenant_id=tenant_id)
    running = [claim_some(db) for _ in range(3)]
    assert Counter(job.tenant_id for job in running) == {1: 2, 2: 1}
    assert claim(db) is None
    finish(db, next(job for job in running if job.tenant_id == 1))
    assert claim_some(db).tenant_id == 1


def test_ten_tenants_are_served_alike_though_one_owns_half_the_queue(tmp_path: Path) -> None:
    db = make_database(tmp_path, FakeClock(), tenant_count=10)

    def submit(uow: UnitOfWork) -> None:
        for tenant_id in [1] * 180 + [t for t in range(2, 11) for _ in range(20)]:
            jobs.insert(uow, make_new_job(tenant_id=tenant_id))

    db.write(submit)
    served = Counter(tenants_served(db, 200))
    shares = [served[tenant] for tenant in range(1, 11)]
    jain = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
    db.close()
    assert jain >= 0.999


def test_two_processes_worth_of_claims_never_share_a_job(tmp_path: Path) -> None:
    url = empty_database(tmp_path)
    first, second = open_database(url), open_database(url)
    first.write(lambda uow: accounts.ensure_tenant(uow, "default"))
    submitted = {make_job(first).id for _ in range(120)}

    def work(number: int) -> list[int]:
        db = (first, second)[number % 2]
        ids = []
        while (job := claim(db, worker=f"w{number}")) is not None:
            ids.append(job.id)
        return ids

    with ThreadPoolExecutor(8) as threads:
        claimed = [job_id for ids in threads.map(work, range(8)) for job_id in ids]
    first.close()
    second.close()
    assert sorted(submitted) == sorted(claimed)


def test_second_ticket_for_a_claimed_job_finds_nothing(db: Database) -> None:
    make_job(db)
    assert claim(db, worker="w1") is not None
    assert claim(db, worker="w2") is None


def test_claim_heals_a_counter_that_says_there_is_work(db: Database) -> None:
    make_job(db)
    wrong = "UPDATE flows SET queued = 5"
    claim_some(db)
    db.write(lambda uow: uow.conn.exec_driver_sql(wrong))
    assert claim(db) is None
    assert not db.read(jobs.find_drift)


class TestHeartbeat:
    def beat(
        self, db: Database, *progress: tuple[int, int, Phase, float], worker: str = "w1"
    ) -> list[jobs.Owned]:
        entries = [jobs.Progress(*entry) for entry in progress]
        return db.write(
            lambda uow: jobs.heartbeat(uow, worker=worker, lease_s=30.0, progress=entries)
        )

    def read(self, db: Database, job: Job) -> Job:
        found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
        assert found is not None
        return found

    def test_renews_the_lease_and_keeps_the_progress(self, db: Database, clock: FakeClock) -> None:
        make_job(db)
        job = claim_some(db)
        clock.advance(20.0)
        owned = self.beat(db, (job.id, 1, Phase.DENOISING, 0.4))
        after = self.read(db, job)
        assert [(job.id, 1, False)] == owned
        assert (after.phase, after.progress) == (Phase.DENOISING, 0.4)
        assert clock.now + 30.0 == after.lease_until

    def test_progress_never_falls_within_an_attempt(self, db: Database) -> None:
        make_job(db)
        job = claim_some(db)
        for share in (0.2, 0.6, 0.5):
            self.beat(db, (job.id, 1, Phase.DENOISING, share))
        assert self.read(db, job).progress == 0.6

    def test_tells_of_a_requested_cancellation(self, db: Database) -> None:
        make_job(db)
        job = claim_some(db)
        db.write(lambda uow: jobs.request_cancel(uow, job.public_id, 1))
        assert [(job.id, 1, True)] == self.beat(db, (job.id, 1, Phase.DENOISING, 0.1))

    def test_run_that_is_not_named_is_not_renewed(self, db: Database, clock: FakeClock) -> None:
        make_job(db)
        job = claim_some(db)
        clock.advance(20.0)
        assert self.beat(db) == []
        assert job.lease_until == self.read(db, job).lease_until

    @pytest.mark.parametrize(("attempt", "worker"), [(2, "w1"), (1, "w2")])
    def test_somebody_elses_run_is_not_owned(self, db: Database, attempt: int, worker: str) -> None:
        make_job(db)
        job = claim_some(db)
        assert self.beat(db, (job.id, attempt, Phase.DENOISING, 0.9), worker=worker) == []
        assert self.read(db, job).progress == 0.0
