"""What callers see of their jobs."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.builders import FakeClock, make_job, make_result, make_spec
from tests.callers import make_caller
from tests.claims import settle, take
from tests.recorders import RecordingBus, RecordingTickets
from vidmill.domain.errors import TaskNotCancellable, TaskNotFound
from vidmill.domain.job import Job, JobState, Phase
from vidmill.profiles import load_profile
from vidmill.services.erasure import Erasure
from vidmill.services.forecast import Forecast
from vidmill.services.tasks import SEQ_FINAL, Tasks, merge
from vidmill.storage import open_blobs
from vidmill.store import attempts, glance, jobs
from vidmill.store.jobs import JobFilter
from vidmill.store.session import Database

ME = make_caller(1)
OTHER = make_caller(2, user_id=2)


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
def tasks(db: Database, bus: RecordingBus, clock: FakeClock, tmp_path: Path) -> Tasks:
    forecast = Forecast(db, profile=load_profile("tiny"), pool="main", clock=clock)
    blobs = open_blobs(tmp_path.joinpath("files").as_uri())
    return Tasks(
        db=db,
        bus=bus,
        tickets=RecordingTickets(),
        erasure=Erasure(db=db, blobs=blobs),
        forecast=forecast,
    )


def event(job: Job, **changes: Any) -> dict[str, Any]:
    values = {
        "attempt": job.attempt,
        "state": JobState.RUNNING,
        "phase": Phase.DENOISING,
        "progress": 0.5,
    }
    return {**values, **changes}


def learn(db: Database, clock: FakeClock, cost_s: float) -> None:
    """Let one clip of `make_spec` be made in *cost_s*."""
    make_job(db)
    job = take(db)
    clock.advance(cost_s)
    timings = {"denoising": cost_s, "decoding": 0.0}
    settle(db, job, jobs.Succeeded(result=make_result(timings_s=timings)))
    clock.advance(2)


def test_a_task_belongs_to_its_tenant(tasks: Tasks, db: Database) -> None:
    job = make_job(db)

    assert tasks.get(job.public_id, ME).job == job
    with pytest.raises(TaskNotFound):
        tasks.get(job.public_id, OTHER)
    with pytest.raises(TaskNotFound):
        tasks.get("t2v_\ud800", ME)


def test_news_of_the_same_run_is_shown_before_the_row_has_it(
    tasks: Tasks, db: Database, bus: RecordingBus
) -> None:
    make_job(db)
    job = take(db)
    bus.publish(job.public_id, event(job))

    view = tasks.get(job.public_id, ME)

    assert (view.phase, view.progress) == (Phase.DENOISING, 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 7},
        {"attempt": 0, "progress": 0.99, "phase": Phase.STORING},
        {"progress": 0.1, "phase": Phase.STARTING},
    ],
)
def test_news_never_takes_a_task_back_or_into_another_run(
    db: Database, changes: dict[str, Any]
) -> None:
    make_job(db)
    job = take(db)
    held = [jobs.Progress(job.id, job.attempt, Phase.DENOISING, 0.3)]
    db.write(lambda uow: jobs.heartbeat(uow, worker="w1", lease_s=30.0, progress=held))
    row = db.read(lambda conn: jobs.get_by_id(conn, job.id))
    assert row is not None

    assert merge(row, event(row, **changes)) == (Phase.DENOISING, 0.3)


def test_news_of_a_task_that_does_not_run_is_not_shown(db: Database) -> None:
    job = make_job(db)

    assert merge(job, event(job)) == (Phase.WAITING, 0.0)


def test_order_keys_grow_from_submit_to_the_end(
    tasks: Tasks, db: Database, bus: RecordingBus, clock: FakeClock
) -> None:
    task_id = make_job(db).public_id
    keys = [tasks.get(task_id, ME).order_key]
    first = take(db)
    keys.append(tasks.get(task_id, ME).order_key)
    for phase, progress in ((Phase.DENOISING, 0.1), (Phase.DENOISING, 0.8), (Phase.STORING, 0.99)):
        bus.publish(task_id, event(first, phase=phase, progress=progress))
        keys.append(tasks.get(task_id, ME).order_key)
    lost = jobs.Delayed(not_before=clock.now, code="worker_lost", message="gone")
    settle(db, first, lost)
    keys.append(tasks.get(task_id, ME).order_key)
    db.write(jobs.promote)
    keys.append(tasks.get(task_id, ME).order_key)
    second = take(db, "w2")
    keys.append(tasks.get(task_id, ME).order_key)
    settle(db, second, jobs.Succeeded(result=make_result()))
    keys.append(tasks.get(task_id, ME).order_key)

    assert keys == sorted(set(keys))
    assert keys[-1] == (2, SEQ_FINAL)


def test_positions_count_those_before_and_newcomers_at_once(tasks: Tasks, db: Database) -> None:
    made = [make_job(db) for _ in range(3)]
    assert [tasks.view(job).outlook.position for job in made] == [0, 1, 2]

    later = [make_job(db) for _ in range(2)]

    assert [tasks.view(job).outlook.position for job in later] == [3, 4]
    assert [tasks.view(job).outlook.position for job in later] == [3, 4]


def test_a_newcomer_with_nothing_queued_before_has_a_place_too(tasks: Tasks, db: Database) -> None:
    assert tasks.view(make_job(db)).outlook.position == 0

    assert tasks.view(make_job(db, tenant_id=2)).outlook.position is not None


def test_positions_follow_the_queue_within_a_second(
    tasks: Tasks, db: Database, clock: FakeClock
) -> None:
    _, second = make_job(db), make_job(db)
    assert tasks.view(second).outlook.position == 1
    take(db)
    clock.advance(1.1)

    assert tasks.view(second).outlook.position == 0


def test_pages_end_where_the_list_does(tasks: Tasks, db: Database) -> None:
    made = [make_job(db) for _ in range(3)]

    first = tasks.page(ME, filters=JobFilter(), after=None, limit=2)
    second = tasks.page(ME, filters=JobFilter(), after=first.after, limit=2)

    assert [view.job.id for view in first.tasks] == [made[2].id, made[1].id]
    assert [view.job.id for view in second.tasks] == [made[0].id]
    assert second.after is None
    assert tasks.page(OTHER, filters=JobFilter(), after=None, limit=2).tasks == []


def test_cancelling_a_waiting_task_is_told_to_who_watches(
    tasks: Tasks, db: Database, bus: RecordingBus
) -> None:
    job = make_job(db)

    view = tasks.cancel(job.public_id, ME)

    assert view.job.state is JobState.CANCELLED
    assert [(name, told["state"]) for name, told in bus.events] == [
        (job.public_id, JobState.CANCELLED)
    ]


def test_cancelling_a_running_task_asks_its_worker(
    tasks: Tasks, db: Database, bus: RecordingBus
) -> None:
    make_job(db)
    job = take(db)

    view = tasks.cancel(job.public_id, ME)

    assert (view.job.state, view.job.is_cancel_requested) == (JobState.RUNNING, True)
    assert bus.cancels == [(job.public_id, 1)]


def test_what_is_over_or_not_ones_own_cannot_be_cancelled(tasks: Tasks, db: Database) -> None:
    make_job(db)
    job = take(db)
    with pytest.raises(TaskNotFound):
        tasks.cancel(job.public_id, OTHER)
    with pytest.raises(TaskNotFound):
        tasks.cancel("nonsense", ME)
    settle(db, job, jobs.Failed(code="bad_output", message="black"))

    with pytest.raises(TaskNotCancellable, match="failed"):
        tasks.cancel(job.public_id, ME)


def test_the_short_way_to_a_row_and_the_long_way_lead_to_the_same_job(
    db: Database, clock: FakeClock
) -> None:
    done, lost = make_job(db, client_reference="ü"), make_job(db, spec=make_spec(prompt="红"))
    settle(db, take(db), jobs.Succeeded(result=make_result()))
    settle(db, take(db), jobs.Delayed(not_before=clock.now + 5, code="worker_lost", message="gone"))
    waiting = make_job(db, parent=done.public_id)
    for job in (done, lost, waiting):
        long = db.read(partial(jobs.get, public_id=job.public_id, tenant_id=1))
        short = db.read(partial(glance.get, public_id=job.public_id, tenant_id=1))
        assert short == long
    assert db.read(lambda conn: glance.get(conn, done.public_id, 2)) is None


def test_runs_are_told_oldest_first(tasks: Tasks, db: Database, clock: FakeClock) -> None:
    job = make_job(db)
    settle(db, take(db), jobs.Delayed(not_before=clock.now, code="worker_lost", message="gone"))
    db.write(jobs.promote)
    take(db)

    runs = tasks.runs(tasks.get(job.public_id, ME))

    assert [run.attempt for run in runs] == [1, 2]
    assert runs[0].error_code == "worker_lost"
    assert runs[1] == attempts.Attempt(
        attempt=2,
        started_at=clock.now,
        ended_at=None,
        outcome=None,
        error_code=None,
        error_message=None,
    )
