"""Storyboards begin: shots queued together or not at all, priced, followed to the end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.callers import make_caller
from tests.desks import Bench, make_bench
from tests.storyboards import (
    CALLER,
    FakeJoin,
    fail,
    joiner,
    make,
    ready,
    shot,
    states,
    succeed,
    told,
)
from vidmill.api.desk import Desk
from vidmill.domain.errors import (
    InvalidRequest,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    StoryboardNotFound,
)
from vidmill.domain.storyboard import BoardState, ShotState
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.storyboards import Sheet, Storyboards
from vidmill.store import gauges, jobs


def test_all_shots_are_queued_at_once_and_priced_together(
    bench: Bench, boards: Storyboards
) -> None:
    view = make(boards, shot("one", crossfade_s=1.0), shot("two", duration_s=4.0), name="spring")

    assert (view.board.state, view.board.name) == (BoardState.RENDERING, "spring")
    assert states(view) == [ShotState.ACTIVE] * 2
    assert (view.duration_s, view.price_credits, view.progress) == (6.0, 70, 0.0)
    assert bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=9))) == 2


def test_nothing_is_queued_unless_all_shots_fit(bench: Bench, boards: Storyboards) -> None:
    many = [shot(f"{n}") for n in range(21)]
    wrong_shots = [many, many[:1], [shot(crossfade_s=1.6), shot()], [shot(""), shot("two")]]
    for shots in wrong_shots:
        with pytest.raises(InvalidRequest):
            make(boards, *shots)

    sheet = Sheet(name=None, resolution="480p", aspect_ratio="16:9", fps=24, priority="high")
    with pytest.raises(PermissionDenied):
        boards.create(sheet, [shot(priority="high")] * 2, make_caller())
    assert bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=9)) == []
    assert boards.page(CALLER, after=None, limit=9) == []


def test_a_queue_without_room_for_all_shots_takes_none(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, cap_queued=2)
    boards = Desk.of(bench.app).storyboards
    with pytest.raises(QuotaExceeded, match="these are 3; ask for fewer at once"):
        make(boards)
    bench.generate()
    with pytest.raises(QueueFull):
        make(boards, shot("one"), shot("two"))
    assert bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=9))) == 1
    bench.close()


def test_a_storyboard_is_told_again_however_full_the_queue_is(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, queue_total_max=2)
    boards, key = Desk.of(bench.app).storyboards, IdempotencyKey(key="k", fingerprint="f")
    first = make(boards, shot("one"), shot("two"), key=key)
    bench.clock.advance(1.5)

    again = make(boards, shot("one"), shot("two"), key=key)

    assert (again.board.public_id, again.is_replay) == (first.board.public_id, True)
    with pytest.raises(QueueFull, match="all tenants"):
        make(boards)
    bench.close()


def test_a_quote_says_what_it_would_cost_and_stores_nothing(
    bench: Bench, boards: Storyboards
) -> None:
    quote = boards.quote([shot(crossfade_s=0.5), shot(duration_s=5.0)], CALLER)

    assert (list(quote.prices), quote.duration_s) == ([30, 50], 7.5)
    assert bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=9)) == []


def test_the_same_request_under_one_key_makes_one(bench: Bench, boards: Storyboards) -> None:
    key = IdempotencyKey(key="k", fingerprint="f")

    first, again = (make(boards, key=key) for _ in range(2))

    assert again.board.public_id == first.board.public_id
    assert (first.is_replay, again.is_replay) == (False, True)
    assert bench.app.db.read(lambda conn: len(jobs.page(conn, 1, limit=9))) == 3


def test_a_shot_found_in_the_cache_is_joined_at_once(bench: Bench, boards: Storyboards) -> None:
    cached = shot("one", cache=True, seed=1)
    board_id = make(boards, cached, shot("two")).board.public_id
    for _ in range(2):
        succeed(bench)

    other = make(boards, replace(cached, crossfade_s=0.5), cached)

    assert other.board.state is BoardState.JOINING
    assert boards.get(board_id, CALLER).board.state is BoardState.JOINING


def test_it_waits_for_its_last_shot_and_is_then_joined_once(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = make(boards).board.public_id
    join = FakeJoin(bench)
    for _ in range(2):
        succeed(bench)
    boards.keeper.tend()
    assert not joiner(bench, join).step()
    assert boards.get(board_id, CALLER).progress == pytest.approx(0.6)

    succeed(bench)
    boards.keeper.tend()
    assert joiner(bench, join).step()
    assert not joiner(bench, join).step()

    view = boards.get(board_id, CALLER)
    assert (view.board.state, view.progress) == (BoardState.COMPLETED, 1.0)
    assert len(join.orders) == 1
    assert join.orders[0]["spans"] == [[72, 0]] * 3
    assert view.board.result is not None
    assert view.board.result.revision == 1
    assert view.board.result.assets["video"].key == f"{board_id}/1/1/clip.mp4"


def test_what_is_under_way_is_counted_by_state_and_the_oldest_wait_known(
    bench: Bench, boards: Storyboards
) -> None:
    read, began = bench.app.db.read, bench.clock()
    assert read(gauges.joining_since) is None
    make(boards)
    boards.cancel(make(boards).board.public_id, CALLER)
    for _ in range(3):
        succeed(bench)
    boards.keeper.tend()
    bench.clock.advance(60)
    ready(bench, boards)

    assert read(gauges.storyboards_by_state) == {
        ("rendering",): 0,
        ("joining",): 2,
        ("cancelling",): 0,
    }
    assert read(gauges.joining_since) == pytest.approx(began, abs=1)


def test_its_own_url_hears_of_the_end(bench: Bench, boards: Storyboards) -> None:
    url = "https://93.184.215.14/hook"
    done, lost = (make(boards, webhook_url=url).board.public_id for _ in range(2))
    for _ in range(3):
        succeed(bench)
    for _ in range(3):
        fail(bench)
    boards.keeper.tend()
    joiner(bench, FakeJoin(bench)).step()

    assert told(bench) == [("t2v.storyboard.failed", lost), ("t2v.storyboard.completed", done)]


def test_another_tenant_finds_nothing(bench: Bench, boards: Storyboards) -> None:
    board_id, stranger = make(boards).board.public_id, make_caller(2)
    asks: list[Callable[[], object]] = [
        lambda: boards.get(board_id, stranger),
        lambda: boards.cancel(board_id, stranger),
        lambda: boards.delete(board_id, stranger),
        lambda: boards.replace_shot(board_id, 1, shot(), stranger),
    ]
    for ask in asks:
        with pytest.raises(StoryboardNotFound):
            ask()
    assert boards.page(stranger, after=None, limit=9) == []
