"""Batches are confirmed and made again: what is queued, charged and refused."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from tests.desks import Bench
from tests.sheets import CALLER, check, confirm, states
from vidmill.domain.batch import BatchState, RowState
from vidmill.domain.errors import BatchNotFound, BatchStateConflict, FieldProblem, QuotaExceeded
from vidmill.domain.job import JobState
from vidmill.domain.order import Order
from vidmill.services.access import Caller
from vidmill.services.batch_checks import Candidate
from vidmill.services.batches import UNCONFIRMED_MAX, Batches, Sheet
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.submission import Submission
from vidmill.store import accounts, jobs


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
