"""Who leads, who follows a leader, and what a new one takes up."""

from concurrent.futures import ThreadPoolExecutor

from tests.builders import FakeClock, make_job
from tests.claims import take
from tests.controllers import make_controller, run, state
from tests.recorders import RecordingBus, RecordingTickets
from vidmill.domain.job import JobState
from vidmill.services.controller import Controller, ControllerTimes
from vidmill.store.session import Database


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


def test_two_controllers_have_one_leader_and_a_successor(
    db: Database, controller: Controller, tickets: RecordingTickets, bus: RecordingBus
) -> None:
    other = make_controller(db, tickets, bus, name="c2")
    assert (controller.lead(), other.lead()) == (True, False)
    controller.step_down()
    assert (other.lead(), controller.lead()) == (True, False)


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
