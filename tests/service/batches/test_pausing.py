"""A paused batch holds its tasks, and nobody else's, until it is resumed."""

import pytest

from tests.desks import Bench
from tests.sheets import CALLER, check, confirm, states
from vidmill.domain.errors import BatchStateConflict, QueueFull
from vidmill.domain.job import JobState
from vidmill.domain.order import Order
from vidmill.services.batch_checks import Candidate
from vidmill.services.batches import Batches, Sheet
from vidmill.store import accounts, jobs


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


def test_a_change_that_cannot_be_says_of_which_batches_it_can(batches: Batches) -> None:
    name = check(batches).batch.public_id
    said = []
    for change in (batches.pause, batches.resume, batches.cancel):
        with pytest.raises(BatchStateConflict) as refusal:
            change(name, CALLER)
        said.append(str(refusal.value))

    assert said == [
        "the batch is checked; only one that is processing can be paused",
        "the batch is checked; only one that is paused can be resumed",
        "the batch is checked; only one that is paused or processing can be cancelled",
    ]
