"""What becomes of batches when processes die, run out of time, or do the same thing at once."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_result
from tests.callers import make_caller
from tests.desks import Bench, make_bench
from vidmill.api.desk import Desk
from vidmill.domain.batch import BatchState, RowState
from vidmill.domain.errors import (
    BatchNotFound,
    BatchStateConflict,
    FieldProblem,
    QueueFull,
    QuotaExceeded,
)
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.order import Order
from vidmill.services.access import Caller
from vidmill.services.batch_checks import Candidate
from vidmill.services.batches import UNCONFIRMED_MAX, Batches, BatchView, Sheet
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.submission import Submission
from vidmill.store import accounts, jobs
from vidmill.store import batches as stored_batches

CALLER = make_caller(lane=Lane.VIP)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def batches(bench: Bench) -> Batches:
    return Desk.of(bench.app).batches


def check(batches: Batches, count: int = 3, *, cache: bool = False, **sheet: Any) -> BatchView:
    orders = [Order(prompt=f"ball {n}", cache=cache, priority="low") for n in range(count)]
    rows = [Candidate(line=n, order=order) for n, order in enumerate(orders, 1)]
    return batches.check(rows, CALLER, Sheet(**sheet))


def confirm(batches: Batches, count: int = 3, **sheet: Any) -> str:
    name = check(batches, count, **sheet).batch.public_id
    batches.confirm(name, CALLER, "ready_rows_only")
    return name


def impatient(batches: Batches) -> Batches:
    """Return the same, of a process that dies before it moves a job."""
    return replace(batches, keeper=replace(batches.keeper, patience_s=0.0))


def states(bench: Bench) -> list[JobState]:
    found = bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=100, is_oldest_first=True))
    return [job.state for job in found]


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


def confirm_same(batches: Batches, count: int) -> str:
    """Queue a batch whose rows are all the same clip."""
    rows = [Candidate(line=n, order=Order(prompt="a ball")) for n in range(1, count + 1)]
    name = batches.check(rows, CALLER, Sheet()).batch.public_id
    batches.confirm(name, CALLER, "ready_rows_only")
    return name


def test_whoever_takes_a_paused_tasks_place_is_paused_too(bench: Bench, batches: Batches) -> None:
    name = confirm_same(batches, 3)
    batches.pause(name, CALLER)
    assert states(bench) == [JobState.DELAYED, JobState.FOLLOWING, JobState.FOLLOWING]
    first = bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=1, is_oldest_first=True))

    batches.tasks.cancel(first[0].public_id, CALLER)

    assert states(bench) == [JobState.CANCELLED, JobState.DELAYED, JobState.FOLLOWING]
    batches.resume(name, CALLER)
    assert states(bench) == [JobState.CANCELLED, JobState.QUEUED, JobState.FOLLOWING]
    assert not bench.app.db.read(jobs.find_drift)


@pytest.mark.parametrize(("outsiders", "then"), [(0, JobState.DELAYED), (1, JobState.QUEUED)])
def test_a_paused_batch_holds_up_what_follows_it_from_within_alone(
    bench: Bench, batches: Batches, outsiders: int, then: JobState
) -> None:
    leader = batches.submission.submit(Order(prompt="a ball"), CALLER)
    name = confirm_same(batches, 1)
    for _ in range(outsiders):
        batches.submission.submit(Order(prompt="a ball"), CALLER)
    batches.pause(name, CALLER)

    batches.tasks.cancel(leader.public_id, CALLER)

    assert states(bench)[1] is then


def test_what_is_paused_counts_as_queued_for_the_limit(bench: Bench, batches: Batches) -> None:
    bench.app.db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=4))
    first = confirm(batches)
    batches.pause(first, CALLER)
    second = check(batches, 2).batch.public_id
    bench.generate()

    with pytest.raises(QueueFull, match="5 of your tasks would wait"):
        batches.submission.submit(Order(prompt="a ball"), CALLER)
    with pytest.raises(QueueFull, match="6 of your tasks would wait"):
        batches.confirm(second, CALLER, "ready_rows_only")

    clips = bench.client.get("/v1/t2v/quota").json()["limits"]
    (queued,) = [limit for limit in clips if limit["name"] == "queued"]
    assert (queued["limit"], queued["used"]) == (4, 4)
    batches.resume(first, CALLER)
    assert states(bench) == [JobState.QUEUED] * 4


def test_a_retry_that_waits_is_paused_and_looks_as_begun(bench: Bench, batches: Batches) -> None:
    name = confirm(batches, 1)
    later = jobs.Delayed(not_before=bench.clock.now + 9, code="worker_lost", message="gone")
    bench.settle(bench.claim(), later)

    view = batches.pause(name, CALLER)
    bench.clock.advance(10)
    bench.app.db.write(jobs.promote)

    assert (states(bench), view.tally.num_running) == ([JobState.DELAYED], 1)
    batches.resume(name, CALLER)
    assert states(bench) == [JobState.QUEUED]


def test_of_two_confirmations_at_once_one_queues(bench: Bench, batches: Batches) -> None:
    name = check(batches).batch.public_id

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: batches.confirm(name, CALLER, "ready_rows_only"), range(2)))

    assert states(bench) == [JobState.QUEUED] * 3


def test_of_two_reruns_at_once_one_queues(bench: Bench, batches: Batches) -> None:
    name = confirm(batches, 1)
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))

    def rerun(_: int) -> bool:
        try:
            batches.rerun_failed(name, CALLER)
        except BatchStateConflict:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        done = sorted(threads.map(rerun, range(2)))

    assert (done, states(bench)) == ([False, True], [JobState.FAILED, JobState.QUEUED])


def test_a_repeated_rerun_is_told_at_the_cap_too(bench: Bench, batches: Batches) -> None:
    bench.app.db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=2))
    name = confirm(batches, 2)
    key = IdempotencyKey(key="k", fingerprint="rerun")
    for _ in range(2):
        bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))
    first = batches.rerun_failed(name, CALLER, key=key)
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="black"))
    batches.submission.submit(Order(prompt="a ball"), CALLER)

    again = batches.rerun_failed(name, CALLER, key=key)

    assert (first.is_replay, again.is_replay) == (False, True)
    assert states(bench).count(JobState.QUEUED) == 2


def test_a_price_that_rose_since_the_check_is_not_charged(bench: Bench, batches: Batches) -> None:
    name = check(batches).batch.public_id
    tariff = batches.submission.tariff
    dearer = {size: 2 * price for size, price in tariff.credits_per_s.items()}
    submission = replace(batches.submission, tariff=replace(tariff, credits_per_s=dearer))

    with pytest.raises(BatchStateConflict, match=r"was \d+ credits .* is \d+ now"):
        replace(batches, submission=submission).confirm(name, CALLER, "ready_rows_only")

    assert states(bench) == []


def test_a_row_that_may_not_be_made_any_more_is_left_out_and_told(
    bench: Bench, batches: Batches
) -> None:
    rows = [
        Candidate(line=1, order=Order(prompt="a ball")),
        Candidate(line=2, order=Order(prompt="a long ball" * 9)),
    ]
    name = batches.check(rows, CALLER, Sheet()).batch.public_id
    drafts = batches.submission.drafts
    strict = replace(drafts, limits=replace(drafts.limits, prompt_max_chars=20))
    stricter = replace(batches, submission=replace(batches.submission, drafts=strict))

    view = stricter.confirm(name, CALLER, "ready_rows_only")

    assert view.tally.rows == {RowState.ACTIVE: 1, RowState.INVALID: 1}
    (wrong,) = batches.rows(view.batch, states=[RowState.INVALID])
    assert [problem["code"] for problem in wrong.problems] == ["max_length"]
    assert states(bench) == [JobState.QUEUED]


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


@dataclass(frozen=True, kw_only=True)
class Interrupted(Submission):
    """A desk at which something happens before the orders are taken."""

    meanwhile: Callable[[], object]

    def accept_many(self, orders: Sequence[Order], caller: Caller, **more: Any) -> Any:
        self.meanwhile()
        return super().accept_many(orders, caller, **more)


def interrupted(batches: Batches, meanwhile: Callable[[], object]) -> Batches:
    values = {one.name: getattr(batches.submission, one.name) for one in fields(batches.submission)}
    return replace(batches, submission=Interrupted(**values, meanwhile=meanwhile))


def test_a_batch_deleted_while_it_is_confirmed_is_not_there(bench: Bench, batches: Batches) -> None:
    name = check(batches).batch.public_id
    late = interrupted(batches, lambda: batches.delete(name, CALLER))

    with pytest.raises(BatchNotFound):
        late.confirm(name, CALLER, "ready_rows_only")

    assert states(bench) == []


def test_a_batch_confirmed_while_it_is_confirmed_is_queued_once(
    bench: Bench, batches: Batches
) -> None:
    name = check(batches).batch.public_id
    late = interrupted(batches, lambda: batches.confirm(name, CALLER, "ready_rows_only"))

    late.confirm(name, CALLER, "ready_rows_only")

    assert states(bench) == [JobState.QUEUED] * 3


def test_a_batch_without_a_right_row_cannot_be_confirmed(batches: Batches) -> None:
    problem = FieldProblem(pointer="#", code="type", message="")
    rows = [Candidate(line=1, problems=[problem])]
    name = batches.check(rows, CALLER, Sheet()).batch.public_id

    with pytest.raises(BatchStateConflict, match="no row of the batch is ready"):
        batches.confirm(name, CALLER, "ready_rows_only")


def test_no_more_than_so_many_batches_wait_to_be_confirmed(batches: Batches) -> None:
    names = [check(batches, 1).batch.public_id for _ in range(UNCONFIRMED_MAX)]

    with pytest.raises(QuotaExceeded):
        check(batches, 1)

    batches.delete(names[0], CALLER)
    assert check(batches, 1).batch.state is BatchState.CHECKED


def test_nothing_is_foreseen_while_the_queue_has_no_room(bench: Bench, batches: Batches) -> None:
    bench.app.db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_queued=0))

    assert check(batches).finish is None


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
