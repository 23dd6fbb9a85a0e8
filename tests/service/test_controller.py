"""The controller's steps and its loop."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.builders import FakeClock, make_job
from tests.claims import take
from tests.recorders import RecordingBus, RecordingTickets
from tests.waiting import wait_until
from vidmill.domain.job import Job, JobState, RetryPolicy
from vidmill.services.controller import FORGET_WORKER_S, Controller, ControllerTimes
from vidmill.store import breakers, jobs, workers
from vidmill.store.breakers import BreakerPolicy
from vidmill.store.session import Database
from vidmill.store.workers import WorkerState

WAIT_S = 20.0


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
def tickets() -> RecordingTickets:
    return RecordingTickets()


def make_controller(
    db: Database,
    tickets: RecordingTickets,
    bus: RecordingBus,
    *,
    name: str = "c1",
    chores: Sequence[Callable[[], object]] = (),
    **times: float,
) -> Controller:
    return Controller(
        db,
        tickets,
        bus,
        policy=RetryPolicy(),
        times=ControllerTimes(**times),
        rng=random.Random(1),
        name=name,
        chores=chores,
    )


@pytest.fixture
def controller(db: Database, tickets: RecordingTickets, bus: RecordingBus) -> Controller:
    return make_controller(db, tickets, bus)


def add_worker(db: Database, worker: str, *, pool: str = "main") -> None:
    db.write(
        lambda uow: workers.register(
            uow, worker=worker, pool=pool, host="here", pid=1, profile="tiny", lease_s=30.0
        )
    )
    db.write(lambda uow: workers.renew(uow, worker=worker, lease_s=30.0, state=WorkerState.READY))


def state(db: Database, job: Job) -> JobState:
    found = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert found is not None
    return found.state


def test_lost_run_is_told_to_its_watchers(
    db: Database, controller: Controller, bus: RecordingBus, clock: FakeClock
) -> None:
    make_job(db)
    job = take(db)
    clock.advance(31.0)
    controller.sweep()
    assert state(db, job) is JobState.DELAYED
    event = {"attempt": 1, "state": "delayed", "phase": "retry_wait", "progress": 0.0}
    assert bus.events == [(job.public_id, event)]


def test_sweep_forgets_workers_long_gone(
    db: Database, controller: Controller, clock: FakeClock
) -> None:
    add_worker(db, "w1")
    clock.advance(FORGET_WORKER_S + 31.0)
    controller.sweep()
    assert db.read(lambda conn: workers.on_host(conn, "here")) == []


def test_due_retry_is_queued_and_its_pool_woken(
    db: Database, controller: Controller, tickets: RecordingTickets, clock: FakeClock
) -> None:
    job = make_job(db, not_before=clock.now + 5.0)
    assert controller.promote() == set()
    clock.advance(5.0)
    assert controller.promote() == {"main"}
    assert (state(db, job), tickets.pools) == (JobState.QUEUED, ["main"])


@pytest.mark.parametrize("case", [(0, 2, 0), (3, 0, 0), (3, 2, 2), (1, 2, 1)])
def test_lost_tickets_are_sent_again_one_per_idle_worker(
    db: Database,
    controller: Controller,
    tickets: RecordingTickets,
    case: tuple[int, int, int],
) -> None:
    queued, idle, sent = case
    for number in range(idle):
        add_worker(db, f"w{number}")
    for _ in range(queued):
        make_job(db)
    assert controller.reconcile() == sent
    assert tickets.pools == ["main"] * sent


def test_audit_mends_what_drifted(db: Database, controller: Controller) -> None:
    make_job(db)
    assert not controller.audit()
    db.write(lambda uow: uow.conn.exec_driver_sql("UPDATE tenants SET queued = 9 WHERE id = 1"))
    assert controller.audit().drift == jobs.Drift(flows=0, tenants=1)
    assert not controller.audit()


def test_start_takes_up_what_a_killed_stack_left(
    db: Database, controller: Controller, bus: RecordingBus
) -> None:
    make_job(db)
    job = take(db, "dead")
    swept = controller.start(live=[])
    assert [run.job.public_id for run in swept] == [job.public_id]
    assert take(db, "new").id == job.id
    assert bus.latest(job.public_id) == {
        "attempt": 1,
        "state": "queued",
        "phase": "waiting",
        "progress": 0.0,
    }


def test_start_need_not_wait_for_a_dead_leaders_lease(
    db: Database, controller: Controller, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    make_controller(db, tickets, bus, name="dead").lead()
    assert not controller.lead()
    controller.start(live=[])
    assert controller.lead()


def test_two_controllers_have_one_leader_and_a_successor(
    db: Database, controller: Controller, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    other = make_controller(db, tickets, bus, name="c2")
    assert (controller.lead(), other.lead()) == (True, False)
    controller.step_down()
    assert (other.lead(), controller.lead()) == (True, False)


class SteppedStop(threading.Event):
    """A clock that only waiting moves, and which ends the loop at *until*."""

    def __init__(self, *, until: float) -> None:
        super().__init__()
        self.now = 0.0
        self.until = until

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += max(0.001, timeout or 0.0)
        if self.now >= self.until:
            self.set()
        return self.is_set()


def run(controller: Controller, *, seconds: float) -> None:
    stop = SteppedStop(until=seconds)
    controller.run(stop, monotonic=stop)


def test_loop_does_every_step(
    db: Database, controller: Controller, tickets: RecordingTickets, clock: FakeClock
) -> None:
    make_job(db)
    lost = take(db)
    due = make_job(db, not_before=clock.now + 1.0)
    clock.advance(31.0)
    add_worker(db, "idle")
    db.write(lambda uow: uow.conn.exec_driver_sql("UPDATE tenants SET queued = 9 WHERE id = 1"))
    run(controller, seconds=2.0)
    assert (state(db, lost), state(db, due)) == (JobState.DELAYED, JobState.QUEUED)
    assert set(tickets.pools) == {"main"}
    assert not db.read(jobs.find_drift)


def test_loop_that_does_not_lead_does_nothing(
    db: Database, tickets: RecordingTickets, bus: RecordingBus, clock: FakeClock
) -> None:
    job = make_job(db, not_before=clock.now + 1.0)
    clock.advance(1.0)
    make_controller(db, tickets, bus, name="leader").lead()
    run(make_controller(db, tickets, bus), seconds=10.0)
    assert (state(db, job), tickets.pools) == (JobState.DELAYED, [])


def test_ended_loop_lets_another_lead_at_once(
    db: Database, controller: Controller, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    run(controller, seconds=1.0)
    assert make_controller(db, tickets, bus, name="next").lead()


class FailingTickets(RecordingTickets):
    """Breaks its promise of never raising, the first few times."""

    def publish(self, pool: str) -> None:
        super().publish(pool)
        if len(self.pools) < 3:
            raise RuntimeError("broken")


def test_step_that_fails_is_tried_again_and_the_loop_goes_on(
    db: Database, bus: RecordingBus
) -> None:
    tickets = FailingTickets()
    controller = make_controller(db, tickets, bus, reconcile_s=0.1)
    add_worker(db, "idle")
    make_job(db)
    run(controller, seconds=6.0)
    assert len(tickets.pools) > 3


@contextmanager
def running(controller: Controller) -> Iterator[None]:
    """Run the loop by the real clock for the block."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        loop = threads.submit(controller.run, stop)
        try:
            yield
        finally:
            stop.set()
            loop.result(WAIT_S)


def test_chore_that_hangs_holds_up_no_other_step(
    db: Database, tickets: RecordingTickets, bus: RecordingBus, clock: FakeClock
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def chore() -> None:
        has_begun.set()
        may_end.wait(WAIT_S)

    job = make_job(db, not_before=clock.now + 1.0)
    with running(make_controller(db, tickets, bus, chores=[chore], promote_s=0.01)):
        assert has_begun.wait(WAIT_S)
        clock.advance(1.0)
        is_promoted = wait_until(lambda: state(db, job) is JobState.QUEUED, timeout_s=WAIT_S / 2)
        may_end.set()
    assert is_promoted


def test_steps_are_idempotent(db: Database, controller: Controller, clock: FakeClock) -> None:
    make_job(db)
    take(db)
    clock.advance(31.0)
    steps: list[Callable[[], object]] = [controller.sweep, controller.promote, controller.audit]
    for step in steps:
        step()
    assert [bool(step()) for step in steps] == [False, False, False]


def test_every_pool_with_work_is_woken_whoever_made_it(
    db: Database, controller: Controller, tickets: RecordingTickets
) -> None:
    make_job(db, pool="vip")
    add_worker(db, "w1", pool="vip")
    add_worker(db, "w2")
    assert (controller.reconcile(), tickets.pools) == (1, ["vip"])


def test_pool_whose_rest_is_over_gets_a_ticket_for_its_try(
    db: Database, controller: Controller, tickets: RecordingTickets, clock: FakeClock
) -> None:
    make_job(db)
    policy = BreakerPolicy(failures=1, rest_s=30.0)
    db.write(
        lambda uow: breakers.record_failure(
            uow, pool="main", profile="tiny", job_id=9, reason="Broken.", policy=policy
        )
    )
    assert controller.reconcile() == 0
    clock.advance(30.0)
    assert (controller.reconcile(), tickets.pools) == (1, ["main"])


def test_audit_tells_of_a_ledger_that_disagrees_and_leaves_it(
    db: Database, controller: Controller
) -> None:
    job = make_job(db)
    forged = (
        "INSERT INTO ledger SELECT job_id, 'capture', public_id, tenant_id, user_id, credits, at"
    )
    db.write(lambda uow: uow.conn.exec_driver_sql(f"{forged} FROM ledger"))
    for _ in range(2):
        (wrong,) = controller.audit().mismatches
        assert (wrong.job_id, wrong.entries) == (job.id, ("hold", "capture"))


def test_joining_takes_up_the_dead_and_nobody_else(
    db: Database, controller: Controller, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    make_controller(db, tickets, bus, name="elsewhere").lead()
    lost, kept = make_job(db), make_job(db)
    take(db, "dead")
    take(db, "elsewhere")
    controller.join(dead=["dead"])
    assert (state(db, lost), state(db, kept)) == (JobState.QUEUED, JobState.RUNNING)
    assert tickets.pools == ["main"]
    assert not controller.lead()


def test_leader_that_died_is_followed_within_its_lease(
    db: Database,
    controller: Controller,
    tickets: RecordingTickets,
    bus: RecordingBus,
    clock: FakeClock,
) -> None:
    make_controller(db, tickets, bus, name="dead").lead()
    assert not controller.lead()
    clock.advance(ControllerTimes().leader_lease_s + 0.1)
    assert controller.lead()


def test_two_leaders_at_once_do_no_harm(
    db: Database,
    controller: Controller,
    tickets: RecordingTickets,
    bus: RecordingBus,
    clock: FakeClock,
) -> None:
    lost = [make_job(db) for _ in range(40)]
    for _ in lost:
        take(db)
    due = [make_job(db, not_before=clock.now + 1.0) for _ in range(40)]
    clock.advance(31.0)
    both = [controller, make_controller(db, tickets, bus, name="c2")]
    with ThreadPoolExecutor(4) as threads:
        swept = [threads.submit(one.sweep) for one in both]
        promoted = [threads.submit(one.promote) for one in both]
    assert sorted(run.job.id for future in swept for run in future.result()) == [
        job.id for job in lost
    ]
    assert all(future.result() <= {"main"} for future in promoted)
    assert {state(db, job) for job in due} == {JobState.QUEUED}
    assert not controller.audit()


def test_forecasts_of_all_pools_are_kept_honest(
    db: Database, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    make_job(db, pool="vip")
    asked: list[list[str]] = []
    leader = Controller(
        db,
        tickets,
        bus,
        policy=RetryPolicy(),
        times=ControllerTimes(),
        rng=random.Random(1),
        name="c1",
        calibrate=lambda pools: asked.append(list(pools)),
    )
    run(leader, seconds=1.0)
    assert asked == [["vip"]]


def test_chores_of_other_services_are_done_by_the_leader_alone(
    db: Database, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    done: list[str] = []
    leader, other = (
        make_controller(
            db, tickets, bus, name=name, chores=[partial(done.append, name)], chores_s=0.01
        )
        for name in ("c1", "c2")
    )
    assert leader.lead()
    run(other, seconds=3.5)
    assert done == []
    with running(leader):
        assert wait_until(lambda: len(done) > 1, timeout_s=WAIT_S)
    assert set(done) == {"c1"}


def test_chore_that_fails_is_done_again(
    db: Database, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    tries: list[int] = []

    def chore() -> None:
        tries.append(1)
        raise RuntimeError("broken")

    with running(make_controller(db, tickets, bus, chores=[chore], chores_s=0.01)):
        assert wait_until(lambda: len(tries) > 1, timeout_s=WAIT_S)
