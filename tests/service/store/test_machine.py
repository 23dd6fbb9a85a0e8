"""Random use of the job table against a model in memory: states, counters, runs and the ledger."""

from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from tests.builders import FakeClock, make_database, make_job, make_result
from tests.service.store.model import Model, kept_counts, rounded
from vidmill.domain.job import TERMINAL, Job, JobState, Lane, RetryPolicy
from vidmill.store import accounts, jobs, ledger
from vidmill.store.session import Database, UnitOfWork

LIMIT_S = 1800.0
NUM_TENANTS = 3
CAP_RUNNING = 4


class QueueMachine(RuleBasedStateMachine):
    """Three tenants of two users each; user n + 3 is the second of tenant n."""

    known = Bundle("known")
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.db: Database = make_database(self.folder, self.clock, tenant_count=NUM_TENANTS)
        self.db.write(self.add_users)
        self.model = Model()

    @staticmethod
    def add_users(uow: UnitOfWork) -> None:
        for tenant_id in range(1, NUM_TENANTS + 1):
            accounts.ensure_user(uow, tenant_id, "second")
        for tenant in accounts.all_tenants(uow.conn):
            accounts.ensure_tenant(uow, tenant.name, cap_running=CAP_RUNNING)

    def teardown(self) -> None:
        self.db.close()

    @rule(
        target=known,
        tenant_id=st.integers(1, NUM_TENANTS),
        is_second=st.booleans(),
        lane=st.sampled_from(Lane),
        is_delayed=st.booleans(),
        cost_s=st.sampled_from([0.1, 7.3, 30.0]),
    )
    def submit(
        self, *, tenant_id: int, is_second: bool, lane: Lane, is_delayed: bool, cost_s: float
    ) -> Job:
        job = make_job(
            self.db,
            tenant_id=tenant_id,
            user_id=tenant_id + NUM_TENANTS * is_second,
            lane=lane,
            not_before=self.clock.now + 20.0 if is_delayed else None,
            est_cost_s=cost_s,
            price_credits=tenant_id * 10,
        )
        self.model.add(job)
        return job

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim(self, worker: str) -> None:
        job = self.db.write(
            lambda uow: jobs.claim(uow, pool="main", worker=worker, profile="tiny", lease_s=30.0)
        )
        running = self.model.tenants(JobState.RUNNING)
        queued = self.model.in_state(JobState.QUEUED)
        may_run = [known for known in queued if running[known.job.tenant_id] < CAP_RUNNING]
        assert (job is not None) == bool(may_run)
        if job is not None:
            known = self.model.jobs[job.id]
            assert known in may_run
            assert known is self.model.head(known.user_key)
            known.move(JobState.RUNNING)
            known.attempts += 1
            assert job.attempt == known.attempts

    @rule(
        job=known,
        late=st.integers(0, 1),
        worker=st.sampled_from(["w1", "w2"]),
        outcome=st.sampled_from(
            [
                jobs.Succeeded(result=make_result()),
                jobs.Failed(code="engine_failed", message=""),
                jobs.Delayed(not_before=0.0, code="engine_failed", message=""),
                jobs.Cancelled(),
                jobs.Requeued(),
            ]
        ),
    )
    def settle(self, job: Job, late: int, worker: str, outcome: jobs.Outcome) -> None:
        known, row = self.model.jobs[job.id], self.read(job)
        attempt = known.attempts - late
        is_owner = (row.worker, late, known.state) == (worker, 0, JobState.RUNNING)
        settled = self.db.write(
            lambda uow: jobs.settle(
                uow, job_id=job.id, attempt=attempt, worker=worker, outcome=outcome
            )
        )
        assert (settled is not None) == is_owner
        if settled is None:
            return
        goes_on = outcome.state in (JobState.DELAYED, JobState.QUEUED)
        is_stopped = goes_on and known.is_flagged
        assert settled.state == (JobState.CANCELLED if is_stopped else outcome.state)
        known.move(settled.state)

    @rule(job=known)
    def cancel(self, job: Job) -> None:
        known = self.model.jobs[job.id]
        self.db.write(lambda uow: jobs.request_cancel(uow, job.public_id, job.tenant_id))
        if known.state in (JobState.QUEUED, JobState.DELAYED):
            known.move(JobState.CANCELLED)
        elif known.state is JobState.RUNNING:
            known.is_flagged = True

    @rule(job=known)
    def run_next(self, job: Job) -> None:
        known = self.model.jobs[job.id]
        moved = self.db.write(
            lambda uow: jobs.run_next(uow, job.public_id, job.tenant_id, job.user_id)
        )
        assert (moved is not None) == (known.state is JobState.QUEUED)
        if moved is not None:
            known.rank = moved.rank
            assert known is self.model.head(known.user_key)

    @rule(seconds=st.sampled_from([-3.0, 1.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)  # a clock that is set back must not spoil a counter

    @rule()
    def sweep(self) -> None:
        swept = self.db.write(
            lambda uow: jobs.sweep(
                uow, policy=RetryPolicy(), jitter=lambda: 0.5, time_limit_s=LIMIT_S
            )
        )
        for run in swept:
            known = self.model.jobs[run.job.id]
            assert (run.state == JobState.CANCELLED) == known.is_flagged
            known.move(run.state)

    @rule()
    def restart(self) -> None:
        for run in self.db.write(lambda uow: jobs.release_dead(uow, live=["w2"])):
            self.model.jobs[run.job.id].move(run.state)

    @rule()
    def promote(self) -> None:
        self.db.write(jobs.promote)
        for known in self.model.in_state(JobState.DELAYED):
            if self.read(known.job).state is JobState.QUEUED:
                known.move(JobState.QUEUED)

    def read(self, job: Job) -> Job:
        found = self.db.read(lambda conn: jobs.get_by_id(conn, job.id))
        assert found is not None
        return found

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        self.db.read(self.check)

    def check(self, conn: Connection) -> None:
        stored = {
            job.id: job
            for tenant_id in range(1, NUM_TENANTS + 1)
            for job in jobs.page(conn, tenant_id, limit=1000)
        }
        expected = {job_id: (k.state, k.rank) for job_id, k in self.model.jobs.items()}
        assert {job_id: (job.state, job.rank) for job_id, job in stored.items()} == expected
        for job in stored.values():
            assert (job.finished_at is not None) == (job.state in TERMINAL)
            assert job.state is not JobState.RUNNING or job.lease_until is not None
        self.check_counters(conn)
        self.check_ledger(conn)
        self.check_attempts(conn)

    def check_counters(self, conn: Connection) -> None:
        flow, user = "pool, lane, tenant_id", "pool, lane, tenant_id, user_id"
        assert rounded(self.model.flows()) == kept_counts(conn, "flows", flow)
        assert rounded(self.model.user_flows()) == kept_counts(conn, "user_flows", user)
        queued, running = (
            self.model.tenants(state) for state in (JobState.QUEUED, JobState.RUNNING)
        )
        for tenant in accounts.all_tenants(conn):
            assert (tenant.queued, tenant.running) == (queued[tenant.id], running[tenant.id])
            assert tenant.running <= CAP_RUNNING
        assert not jobs.find_drift(conn)

    def check_ledger(self, conn: Connection) -> None:
        lines = conn.exec_driver_sql("SELECT job_id, entry, credits FROM ledger")
        assert self.model.ledger() == Counter(tuple(line) for line in lines)
        assert ledger.audit(conn) == []

    def check_attempts(self, conn: Connection) -> None:
        ended = "SELECT count(*) FROM attempts WHERE outcome IS NOT NULL"
        begun = sum(known.attempts for known in self.model.jobs.values())
        running = len(self.model.in_state(JobState.RUNNING))
        assert conn.exec_driver_sql(ended).scalar() == begun - running


def test_table_and_model_agree_under_random_use(tmp_path: Path) -> None:
    QueueMachine.folder = tmp_path
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
