"""Batches follow their tasks, and tasks their batch, whoever dies or comes in between."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import make_result
from tests.desks import Bench
from tests.sheets import CALLER, check, confirm, states
from vidmill.domain.batch import BatchState, RowState
from vidmill.domain.job import Job, JobState
from vidmill.domain.order import Order
from vidmill.services.batches import Batches
from vidmill.store import batches as stored_batches
from vidmill.store import jobs


def impatient(batches: Batches) -> Batches:
    """Return the same, of a process that dies before it moves a job."""
    return replace(batches, keeper=replace(batches.keeper, patience_s=0.0))


def end(bench: Bench, job: Job) -> None:
    bench.settle(job, jobs.Succeeded(result=make_result()))


def deliveries(bench: Bench) -> list[tuple[Any, ...]]:
    query = "SELECT type, subject, url FROM webhook_deliveries ORDER BY due_at"
    rows = bench.app.db.read(lambda conn: conn.exec_driver_sql(query).all())
    return [tuple(row) for row in rows if row.type.startswith("t2v.batch")]


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("pause", JobState.QUEUED, JobState.DELAYED),
        ("cancel", JobState.QUEUED, JobState.CANCELLED),
    ],
)
def test_the_controller_finishes_what_a_process_left_undone(
    bench: Bench, batches: Batches, action: str, before: JobState, after: JobState
) -> None:
    name = confirm(batches)

    getattr(impatient(batches), action)(name, CALLER)
    assert set(states(bench)) == {before}
    batches.keeper.tend()

    assert set(states(bench)) == {after}


def test_a_resume_that_was_left_undone_is_finished_too(bench: Bench, batches: Batches) -> None:
    name = confirm(batches)
    batches.pause(name, CALLER)

    impatient(batches).resume(name, CALLER)
    batches.keeper.tend()

    assert set(states(bench)) == {JobState.QUEUED}


def test_a_pause_that_was_overtaken_by_a_resume_stops(bench: Bench, batches: Batches) -> None:
    name = confirm(batches)
    paused = impatient(batches).pause(name, CALLER).batch
    batches.resume(name, CALLER)

    batches.keeper.move(paused)

    assert set(states(bench)) == {JobState.QUEUED}


def test_a_large_batch_is_moved_part_by_part(bench: Bench, batches: Batches) -> None:
    name = confirm(batches, 230)

    batches.pause(name, CALLER)
    assert bench.app.db.read(jobs.find_drift).flows == 0
    view = batches.resume(name, CALLER)
    assert view.tally.rows == {RowState.ACTIVE: 230}
    over = batches.cancel(name, CALLER)

    assert (over.batch.state, over.tally.rows) == (
        BatchState.CANCELLED,
        {RowState.CANCELLED: 230},
    )
    assert not bench.app.db.read(jobs.find_drift)


def test_a_batch_ends_with_its_last_task_and_webhooks_hear_of_it_once(
    bench: Bench, batches: Batches
) -> None:
    url = "https://hooks.example.com/batches"
    name = confirm(batches, 2, webhook_url=url)
    end(bench, bench.claim())
    batches.keeper.tend()
    assert batches.get(name, CALLER).batch.state is BatchState.PROCESSING
    assert deliveries(bench) == []

    end(bench, bench.claim())
    batches.keeper.tend()
    batches.keeper.tend()

    assert batches.get(name, CALLER).batch.state is BatchState.COMPLETED
    assert deliveries(bench) == [("t2v.batch.completed", name, url)]


def test_who_looks_before_the_controller_sees_the_end_and_it_is_told_once(
    bench: Bench, batches: Batches
) -> None:
    name = confirm(batches, 1, webhook_url="https://hooks.example.com/x")
    end(bench, bench.claim())

    with ThreadPoolExecutor(4) as threads:
        views = list(threads.map(lambda _: batches.get(name, CALLER), range(8)))

    assert {view.batch.state for view in views} == {BatchState.COMPLETED}
    assert len(deliveries(bench)) == 1


def test_a_batch_of_clips_that_were_there_is_over_at_once(bench: Bench, batches: Batches) -> None:
    confirm(batches, 1, cache=True)
    end(bench, bench.claim())

    view = batches.get(confirm(batches, 1, cache=True), CALLER)

    assert (view.batch.state, view.count(RowState.SUCCEEDED)) == (BatchState.COMPLETED, 1)


def test_a_paused_batch_whose_running_tasks_end_completes(bench: Bench, batches: Batches) -> None:
    name = confirm(batches, 1)
    running = bench.claim()
    batches.pause(name, CALLER)

    end(bench, running)

    assert batches.get(name, CALLER).batch.state is BatchState.COMPLETED


def test_forgotten_batches_leave_no_row(bench: Bench, batches: Batches) -> None:
    check(batches)
    kept = confirm(batches)
    bench.clock.advance(batches.kept_s)

    batches.keeper.tend()

    query = "SELECT count(*), count(DISTINCT batch_id) FROM batch_rows"
    found = bench.app.db.read(lambda conn: conn.exec_driver_sql(query).one())
    assert tuple(found) == (3, 1)
    assert batches.get(kept, CALLER).batch.state is BatchState.PROCESSING


def test_an_idle_controller_finds_nothing_to_do(bench: Bench, batches: Batches) -> None:
    confirm(batches)

    assert bench.app.db.read(stored_batches.waiting) == []


def test_workers_and_owners_at_once_lose_no_count(bench: Bench, batches: Batches) -> None:
    name = confirm(batches, 120)
    pool = bench.app.settings.pool
    finished = threading.Event()

    def work(worker: str) -> int:
        done = 0
        while not finished.is_set():
            job = bench.app.db.write(
                lambda uow: jobs.claim(uow, pool=pool, worker=worker, profile="tiny", lease_s=30.0)
            )
            if job is not None:
                end(bench, job)
                done += 1
        return done

    def own() -> None:
        try:
            for _ in range(4):
                batches.pause(name, CALLER)
                batches.resume(name, CALLER)
            batches.cancel(name, CALLER)
        finally:
            finished.set()

    with ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(work, f"w{number}") for number in range(3)]
        threads.submit(own).result()
    made = sum(worker.result() for worker in workers)
    batches.keeper.tend()

    view = batches.get(name, CALLER)
    assert view.batch.state in {BatchState.CANCELLED, BatchState.COMPLETED}
    assert (view.count(RowState.SUCCEEDED), view.count(RowState.CANCELLED)) == (made, 120 - made)
    assert not bench.app.db.read(jobs.find_drift)


def test_a_clip_that_others_wait_for_is_left_to_them_when_the_batch_is_cancelled(
    bench: Bench, batches: Batches
) -> None:
    name = confirm(batches, 1, cache=True)
    follower = batches.submission.submit(Order(prompt="ball 0", priority="low"), CALLER)
    assert follower.state is JobState.FOLLOWING

    view = batches.cancel(name, CALLER)

    assert view.batch.state is BatchState.CANCELLED
    assert states(bench) == [JobState.CANCELLED, JobState.QUEUED]


def test_runs_that_time_was_too_short_for_are_stopped_by_the_controller(
    bench: Bench, batches: Batches
) -> None:
    name = confirm(batches, 1)
    running = bench.claim()
    ticks = iter([0.0, 1.0, 2.0, 99.0])
    slow = replace(batches, keeper=replace(batches.keeper, monotonic=lambda: next(ticks)))

    slow.cancel(name, CALLER)
    before = bench.app.db.read(lambda conn: jobs.get_by_id(conn, running.id))
    batches.keeper.tend()
    after = bench.app.db.read(lambda conn: jobs.get_by_id(conn, running.id))

    assert before is not None
    assert after is not None
    assert (before.is_cancel_requested, after.is_cancel_requested) == (False, True)


def test_a_task_that_is_erased_while_its_batch_is_cancelled_is_left_alone(
    bench: Bench, batches: Batches
) -> None:
    name = confirm(batches, 1)
    running = bench.claim()
    looks = itertools.count()

    def monotonic() -> float:
        if next(looks) == 3:  # after the task was found, before it is asked to stop
            bench.client.delete(f"/v1/t2v/tasks/{running.public_id}")
        return 0.0

    view = replace(batches, keeper=replace(batches.keeper, monotonic=monotonic)).cancel(
        name, CALLER
    )

    assert view.batch.state is BatchState.CANCELLING
