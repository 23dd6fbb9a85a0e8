"""The loop does every step and chore in its time, whichever fails or hangs."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tests.builders import FakeClock, make_job
from tests.claims import take
from tests.controllers import add_worker, make_controller, run, state
from tests.recorders import RecordingBus, RecordingTickets
from tests.waiting import wait_until
from vidmill.domain.job import JobState, RetryPolicy
from vidmill.services.controller import Controller, ControllerTimes
from vidmill.store import jobs
from vidmill.store.session import Database

WAIT_S = 20.0


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


def test_chore_that_fails_is_done_again(
    db: Database, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    tries: list[int] = []

    def chore() -> None:
        tries.append(1)
        raise RuntimeError("broken")

    with running(make_controller(db, tickets, bus, chores=[chore], chores_s=0.01)):
        assert wait_until(lambda: len(tries) > 1, timeout_s=WAIT_S)
