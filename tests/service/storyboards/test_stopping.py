"""Storyboards are cancelled and deleted: what ends, what stays."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.desks import Bench
from tests.storyboards import CALLER, FakeJoin, joiner, make, ready, shot, states, stored, succeed
from vidmill.domain.errors import (
    ServiceUnavailable,
    StorageFailed,
    StoryboardNotFound,
    StoryboardStateConflict,
)
from vidmill.domain.job import JobState
from vidmill.domain.storyboard import BoardState, JoinedClip, ShotState
from vidmill.services.joining import Keep
from vidmill.services.storyboards import Storyboards
from vidmill.storage.local import LocalBlobs
from vidmill.store import jobs, storyboards


def test_cancelling_stops_every_shot_and_keeps_what_is_there(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards).board.public_id
    succeed(bench)
    running = bench.claim()

    view = boards.cancel(board_id, CALLER)
    assert view.board.state is BoardState.CANCELLING
    assert states(view) == [ShotState.SUCCEEDED, ShotState.ACTIVE, ShotState.CANCELLED]
    bench.settle(running, jobs.Cancelled(code="cancelled", message=""))

    after = boards.get(board_id, CALLER)
    assert after.board.state is BoardState.CANCELLED
    assert after.price_credits == 30
    with pytest.raises(StoryboardStateConflict):
        boards.cancel(board_id, CALLER)


def test_the_controller_finishes_a_cancel_whose_process_died(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards).board.public_id

    def half(uow: Any) -> None:
        held = storyboards.hold(uow, board_id, 1)
        storyboards.set_state(uow, held, BoardState.CANCELLING)  # type: ignore[arg-type]

    bench.app.db.write(half)
    boards.keeper.tend()

    view = boards.get(board_id, CALLER)
    assert view.board.state is BoardState.CANCELLED
    assert [v.task.job.state for v in view.shots if v.task] == [JobState.CANCELLED] * 3


def test_what_is_cancelled_or_replaced_while_it_is_joined_is_not_published(
    bench: Bench, boards: Storyboards
) -> None:
    change: list[Callable[[str], object]] = [
        lambda name: boards.cancel(name, CALLER),
        lambda name: boards.replace_shot(name, 1, shot("other"), CALLER),
    ]
    for act in change:
        board_id = ready(bench, boards)

        class Meddling(FakeJoin):
            def __call__(self, order: Mapping[str, Any], keep: Keep) -> JoinedClip:
                done = super().__call__(order, keep)
                act(board_id)  # noqa: B023  called before the loop goes on
                return done

        joiner(bench, Meddling(bench)).step()

        view = boards.get(board_id, CALLER)
        assert view.board.result is None
        assert stored(bench, board_id) == []
        if view.board.state is BoardState.RENDERING:
            boards.cancel(board_id, CALLER)


def test_deleting_takes_the_files_and_leaves_the_tasks(bench: Bench, boards: Storyboards) -> None:
    board_id = make(boards).board.public_id
    with pytest.raises(StoryboardStateConflict):
        boards.delete(board_id, CALLER)
    for _ in range(3):
        succeed(bench)
    boards.keeper.tend()
    joiner(bench, FakeJoin(bench)).step()

    boards.delete(board_id, CALLER)

    with pytest.raises(StoryboardNotFound):
        boards.get(board_id, CALLER)
    assert stored(bench, board_id) == []
    assert bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=9))) == 3


@pytest.mark.sqlite
def test_deleting_is_to_be_tried_again_where_the_files_stay(
    bench: Bench, boards: Storyboards
) -> None:
    class Stuck(LocalBlobs):
        def delete_prefix(self, prefix: str) -> int:
            raise StorageFailed(f"{prefix} is held")

    board_id = make(boards).board.public_id
    boards.cancel(board_id, CALLER)
    stuck = Stuck(bench.app.settings.effective_storage_url)

    with pytest.raises(ServiceUnavailable):
        replace(boards, blobs=stuck).delete(board_id, CALLER)

    assert boards.get(board_id, CALLER).board.state is BoardState.CANCELLED
