"""A shot of a storyboard is made anew: what is kept, what is stopped, what is refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.desks import Bench
from tests.storyboards import (
    CALLER,
    FakeJoin,
    fail,
    joiner,
    make,
    ready,
    shot,
    states,
    stored,
    succeed,
)
from vidmill.domain.errors import InvalidRequest, StoryboardStateConflict
from vidmill.domain.job import Job, JobState
from vidmill.domain.ports import CancelRequest
from vidmill.domain.storyboard import BoardState, JoinedClip, ShotState
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.joining import LEASE_S
from vidmill.services.storyboards import Storyboards
from vidmill.store import jobs, storyboards
from vidmill.store.session import Database, UnitOfWork


def test_one_shot_without_a_clip_fails_it_and_replacing_that_shot_heals_it(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards).board.public_id
    first = succeed(bench)
    fail(bench)
    succeed(bench)

    lost = boards.get(board_id, CALLER).board
    assert (lost.state, lost.error_code) == (BoardState.FAILED, "shot_missing")
    assert "shot 2" in str(lost.error_message)

    again = boards.replace_shot(board_id, 2, shot("two, but better"), CALLER)
    assert (again.board.state, again.board.revision) == (BoardState.RENDERING, 2)
    assert again.board.error_code is None
    assert again.shots[0].shot.task_id == first.public_id
    succeed(bench)
    join = FakeJoin(bench)
    boards.keeper.tend()
    joiner(bench, join).step()
    assert boards.get(board_id, CALLER).board.state is BoardState.COMPLETED


def test_a_replaced_shot_makes_a_new_revision_and_the_old_files_go(
    bench: Bench, boards: Storyboards
) -> None:
    board_id, join = ready(bench, boards), FakeJoin(bench)
    joiner(bench, join).step()
    before = boards.get(board_id, CALLER)

    boards.replace_shot(board_id, 3, shot("better", duration_s=4.0), CALLER)
    succeed(bench, frames=96)
    between = boards.get(board_id, CALLER).board
    assert between.state is BoardState.JOINING
    assert between.result is not None
    assert between.result.revision == 1  # the earlier one is there until the new one is
    joiner(bench, join).step()

    after = boards.get(board_id, CALLER)
    assert after.board.result is not None
    assert after.board.result.revision == 2
    assert after.duration_s == 10.0
    assert [v.shot.task_id for v in after.shots][:2] == [v.shot.task_id for v in before.shots][:2]
    assert after.shots[2].task is not None
    assert after.shots[2].task.job.parent == before.shots[2].shot.task_id
    assert stored(bench, board_id) == [f"{board_id}/2/2/clip.mp4"]


def test_a_shot_replaced_while_it_renders_is_stopped(bench: Bench, boards: Storyboards) -> None:
    board_id = make(boards).board.public_id
    old = bench.claim()

    boards.replace_shot(board_id, 1, shot("other"), CALLER)

    job = job_of(bench, old.public_id)
    assert job.is_cancel_requested
    bench.settle(job, jobs.Cancelled(code="cancelled", message=""))
    assert states(boards.get(board_id, CALLER)) == [ShotState.ACTIVE] * 3


def job_of(bench: Bench, task_id: str) -> Job:
    job = bench.app.db.read(lambda conn: jobs.get(conn, task_id, 1))
    assert job is not None
    return job


class Killed(BaseException):
    """The process is gone: nothing in it handles this."""


@dataclass
class KilledAfterOneWrite:
    """A database whose process does not live past its first commit."""

    db: Database

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def write(self, fn: Callable[[UnitOfWork], object]) -> None:
        self.db.write(fn)
        raise Killed


def test_a_process_that_dies_once_a_shot_is_replaced_leaves_none_running(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards).board.public_id
    running = bench.claim()
    waiting = boards.get(board_id, CALLER).shots[1].shot.task_id
    dying: Any = KilledAfterOneWrite(bench.app.db)

    doomed = replace(boards, db=dying, tasks=replace(boards.tasks, db=dying))
    inbox = bench.app.bus.listen("w1")

    for number in (1, 2):
        with pytest.raises(Killed):
            doomed.replace_shot(board_id, number, shot("other"), CALLER)

    assert inbox.take() == [CancelRequest(running.public_id, 1)]
    inbox.close()
    asked = job_of(bench, running.public_id)
    ended = job_of(bench, waiting)
    assert (asked.state, asked.is_cancel_requested) == (JobState.RUNNING, True)
    assert ended.state is JobState.CANCELLED
    assert boards.get(board_id, CALLER).board.revision == 3


def test_a_replacement_that_does_not_fit_is_refused_in_its_own_terms(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards, shot(crossfade_s=1.5), shot()).board.public_id
    wrong = [shot(duration_s=2.0), shot(crossfade_s=2.0), shot(duration_s=10.0)]
    tight = replace(boards, duration_max_s=9.0)

    pointers = []
    for number, one in zip((2, 1, 2), wrong, strict=True):
        with pytest.raises(InvalidRequest) as refusal:
            tight.replace_shot(board_id, number, one, CALLER)
        pointers.append([problem.pointer for problem in refusal.value.problems])

    assert pointers == [["#/duration"], ["#/crossfade"], ["#/duration"]]
    assert bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=9))) == 2


def test_a_fade_is_changed_without_a_new_clip(bench: Bench, boards: Storyboards) -> None:
    board_id, join = ready(bench, boards), FakeJoin(bench)
    joiner(bench, join).step()
    before = boards.get(board_id, CALLER)

    with pytest.raises(InvalidRequest):
        boards.refade(board_id, 1, 1.6, CALLER)
    same = boards.refade(board_id, 1, 0.0, CALLER)
    assert (same.board.state, same.board.revision) == (BoardState.COMPLETED, 1)
    after = boards.refade(board_id, 1, 1.5, CALLER)

    assert (after.board.state, after.board.revision, after.duration_s) == (
        BoardState.JOINING,
        2,
        7.5,
    )
    assert [v.shot.task_id for v in after.shots] == [v.shot.task_id for v in before.shots]
    joiner(bench, join).step()
    assert join.orders[-1]["spans"] == [[72, 36], [72, 0], [72, 0]]
    assert stored(bench, board_id) == [f"{board_id}/2/2/clip.mp4"]
    assert bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=9))) == 3


def test_nothing_of_a_storyboard_being_cancelled_is_changed(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards).board.public_id
    bench.claim()
    boards.cancel(board_id, CALLER)

    changes: list[Callable[[], object]] = [
        lambda: boards.refade(board_id, 1, 1.0, CALLER),
        lambda: boards.replace_shot(board_id, 1, shot("other"), CALLER),
    ]
    for change in changes:
        with pytest.raises(StoryboardStateConflict):
            change()


def test_a_replacement_sent_twice_under_one_key_is_made_once(
    bench: Bench, boards: Storyboards
) -> None:
    board_id, key = make(boards).board.public_id, IdempotencyKey(key="k", fingerprint="f")

    first, again = (
        boards.replace_shot(board_id, 1, shot("other"), CALLER, key=key) for _ in range(2)
    )

    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.board.revision == 2


def test_a_revision_joined_by_nobody_yet_does_not_take_an_earlier_ones_result(
    bench: Bench, boards: Storyboards
) -> None:
    one = shot("one", cache=True, seed=1)
    board_id = make(boards, one, shot("two")).board.public_id
    for _ in range(2):
        succeed(bench)
    boards.keeper.tend()
    taken = bench.app.db.write(lambda uow: storyboards.take(uow, lease_s=LEASE_S))
    assert taken is not None

    boards.replace_shot(board_id, 2, one, CALLER)  # from the cache: joining again at once
    assert boards.get(board_id, CALLER).board.state is BoardState.JOINING

    clip = JoinedClip(revision=1, assets={}, fps=24, num_frames=1, duration_s=0.1)
    assert not bench.app.db.write(lambda uow: storyboards.complete(uow, taken, clip))


def test_a_shot_whose_task_was_erased_is_named(bench: Bench, boards: Storyboards) -> None:
    board_id = ready(bench, boards)
    boards.tasks.erase(boards.get(board_id, CALLER).shots[1].shot.task_id, CALLER)

    joiner(bench, FakeJoin(bench)).step()

    view = boards.get(board_id, CALLER)
    assert view.board.state is BoardState.FAILED
    assert "shot 2" in str(view.board.error_message)
    assert view.shots[1].task is None
    with_new = boards.replace_shot(board_id, 2, shot("anew"), CALLER)
    assert with_new.board.state is BoardState.RENDERING
