"""The controller's steps: sweep, promote, reconcile and audit."""

from collections.abc import Callable

import pytest

from tests.builders import FakeClock, make_job
from tests.claims import take
from tests.controllers import add_worker, state
from tests.recorders import RecordingBus, RecordingTickets
from vidmill.domain.job import JobState
from vidmill.services.controller import FORGET_WORKER_S, Controller
from vidmill.store import breakers, jobs, workers
from vidmill.store.breakers import BreakerPolicy
from vidmill.store.session import Database


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
