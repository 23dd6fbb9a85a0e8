"""The triggers' counters stay exact whatever happens; drift made by hand is found and mended."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import Connection

from tests.builders import FakeClock, make_database, make_job, make_result
from vidmill.domain.job import TERMINAL, TRANSITIONS, Job, JobState, Lane, RetryPolicy
from vidmill.store import jobs
from vidmill.store.session import Database

LIMIT_S = 1800.0


def scalar(db: Database, query: str) -> object:
    return db.read(lambda conn: conn.exec_driver_sql(query).scalar())


class QueueMachine(RuleBasedStateMachine):
    """Random use of the store, against a dictionary of what every job's state must be."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.db = make_database(Path(self.folder.name), self.clock, tenant_count=3)
        self.states: dict[int, JobState] = {}
        self.attempts: dict[int, int] = {}
        self.flagged: set[int] = set()

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()

    def move(self, job_id: int, state: JobState) -> None:
        assert state in TRANSITIONS[self.states[job_id]]
        self.states[job_id] = state

    @rule(
        target=known,
        tenant_id=st.integers(1, 3),
        lane=st.sampled_from(Lane),
        is_delayed=st.booleans(),
        cost_s=st.sampled_from([0.1, 7.3, 30.0]),
    )
    def submit(self, *, tenant_id: int, lane: Lane, is_delayed: bool, cost_s: float) -> Job:
        later = self.clock.now + 20.0 if is_delayed else None
        job = make_job(self.db, tenant_id=tenant_id, lane=lane, not_before=later, est_cost_s=cost_s)
        self.states[job.id] = JobState.DELAYED if is_delayed else JobState.QUEUED
        self.attempts[job.id] = 0
        return job

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim(self, worker: str) -> None:
        job = self.db.write(lambda uow: jobs.claim(uow, pool="main", worker=worker, lease_s=30.0))
        queued = [job_id for job_id, state in self.states.items() if state == JobState.QUEUED]
        assert (job is not None) == bool(queued)
        if job is not None:
            self.move(job.id, JobState.RUNNING)
            self.attempts[job.id] += 1
            assert job.attempt == self.attempts[job.id]

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
        row = self.db.read(lambda conn: jobs.get_by_id(conn, job.id))
        assert row is not None
        attempt = self.attempts[job.id] - late
        is_owner = (row.worker, late, self.states[job.id]) == (worker, 0, JobState.RUNNING)
        state = self.db.write(
            lambda uow: jobs.settle(
                uow, job_id=job.id, attempt=attempt, worker=worker, outcome=outcome
            )
        )
        assert (state is not None) == is_owner
        if state is None:
            return
        goes_on = outcome.state in (JobState.DELAYED, JobState.QUEUED)
        is_stopped = goes_on and job.id in self.flagged
        assert state == (JobState.CANCELLED if is_stopped else outcome.state)
        self.move(job.id, state)

    @rule(job=known)
    def cancel(self, job: Job) -> None:
        after = self.db.write(lambda uow: jobs.request_cancel(uow, job.public_id, job.tenant_id))
        assert after is not None
        if self.states[job.id] in (JobState.QUEUED, JobState.DELAYED):
            self.move(job.id, JobState.CANCELLED)
        elif self.states[job.id] == JobState.RUNNING:
            self.flagged.add(job.id)

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        swept = self.db.write(
            lambda uow: jobs.sweep(
                uow, policy=RetryPolicy(), jitter=lambda: 0.5, time_limit_s=LIMIT_S
            )
        )
        for run in swept:
            assert (run.state == JobState.CANCELLED) == (run.job_id in self.flagged)
            self.move(run.job_id, run.state)

    @rule()
    def restart(self) -> None:
        for run in self.db.write(lambda uow: jobs.release_dead(uow, live=["w2"])):
            self.move(run.job_id, run.state)

    @rule()
    def promote(self) -> None:
        self.db.write(jobs.promote)
        for job in self.stored():
            if self.states[job.id] == JobState.DELAYED and job.state == JobState.QUEUED:
                self.move(job.id, JobState.QUEUED)

    def stored(self) -> list[Job]:
        def read(conn: Connection) -> list[Job]:
            return [job for tenant in (1, 2, 3) for job in jobs.page(conn, tenant, limit=1000)]

        return self.db.read(read)

    @invariant()
    def rows_are_as_they_must_be(self) -> None:
        stored = {job.id: job for job in self.stored()}
        assert {job_id: job.state for job_id, job in stored.items()} == self.states
        for job in stored.values():
            assert (job.finished_at is not None) == (job.state in TERMINAL)
            assert job.state != JobState.RUNNING or job.lease_until is not None

    @invariant()
    def counters_are_exact(self) -> None:
        assert not self.db.read(jobs.find_drift)

    @invariant()
    def every_ended_run_has_its_attempt(self) -> None:
        ended = "SELECT count(*) FROM attempts WHERE outcome IS NOT NULL"
        running = sum(state == JobState.RUNNING for state in self.states.values())
        assert scalar(self.db, ended) == sum(self.attempts.values()) - running


QueueMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_counters_and_states_hold_under_random_use = QueueMachine.TestCase


@pytest.fixture
def used(db: Database) -> Database:
    for tenant_id in (1, 1, 1, 2):
        make_job(db, tenant_id=tenant_id)
    db.write(lambda uow: jobs.claim(uow, pool="main", worker="w1", lease_s=30.0))
    return db


@pytest.mark.parametrize(
    ("damage", "drift"),
    [
        ("UPDATE flows SET queued = queued + 1", jobs.Drift(flows=2, tenants=0)),
        ("UPDATE flows SET queued_cost_s = 0", jobs.Drift(flows=2, tenants=0)),
        ("UPDATE flows SET head_at = 1 WHERE tenant_id = 2", jobs.Drift(flows=1, tenants=0)),
        ("DELETE FROM flows", jobs.Drift(flows=2, tenants=0)),
        ("UPDATE tenants SET running = 7 WHERE id = 3", jobs.Drift(flows=0, tenants=1)),
        ("UPDATE tenants SET queued = 0", jobs.Drift(flows=0, tenants=2)),
        ("INSERT INTO flows VALUES ('old', 1, 1, 3, 9, 0, 1)", jobs.Drift(flows=1, tenants=0)),
    ],
)
def test_audit_finds_and_mends_drift(used: Database, damage: str, drift: jobs.Drift) -> None:
    used.write(lambda uow: uow.conn.exec_driver_sql(damage))
    assert used.read(jobs.find_drift) == drift
    assert used.write(jobs.audit) == drift
    assert not used.read(jobs.find_drift)
    assert not used.write(jobs.audit)


def test_oldest_waiting_job_is_known_without_counting(db: Database, clock: FakeClock) -> None:
    for _ in range(3):
        make_job(db)
        clock.advance(10.0)
    start = clock.now - 30.0
    heads = [db.read(lambda conn: jobs.queue_depths(conn, "main"))[Lane.STANDARD].oldest_at]
    for _ in range(2):
        db.write(lambda uow: jobs.claim(uow, pool="main", worker="w1", lease_s=30.0))
        depth = db.read(lambda conn: jobs.queue_depths(conn, "main"))[Lane.STANDARD]
        heads.append(depth.oldest_at)
    assert heads == [start, start + 10.0, start + 20.0]
