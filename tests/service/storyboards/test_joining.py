"""Joining: by one process at a time, tried again, handed on, whatever dies."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.clips import decode
from tests.desks import Bench, database_url
from tests.storyboards import (
    BLUE,
    CALLER,
    GREEN,
    RED,
    FakeJoin,
    joiner,
    make,
    ready,
    shot,
    stored,
    succeed,
)
from tests.waiting import wait_until
from vidmill.domain.errors import BadOutput, InternalError, ServiceUnavailable, StorageFailed
from vidmill.domain.storyboard import BoardState
from vidmill.finishing.checksums import checksums
from vidmill.services.joining import LEASE_S, RETRY_S, Outcome
from vidmill.services.storyboards import Storyboards
from vidmill.stack.joining import new_joiner
from vidmill.store import storyboards
from vidmill.worker.proc import all_processes


@pytest.mark.parametrize(
    ("error", "code", "waits_s"),
    [
        (InternalError("odd"), "internal_error", [10, 20]),
        (ZeroDivisionError(), "internal_error", [10, 20]),
        (StorageFailed("busy"), "storage_failed", [10, 20, 40, 80, 160, 320, *[600] * 5]),
    ],
)
def test_joining_that_fails_is_tried_again_later_and_then_given_up(
    bench: Bench, boards: Storyboards, error: Exception, code: str, waits_s: list[float]
) -> None:
    board_id = ready(bench, boards)
    join = FakeJoin(bench, errors=[error] * (len(waits_s) + 1))

    assert joiner(bench, join).step()
    for wait_s in waits_s:
        bench.clock.advance(wait_s - 1)
        assert not joiner(bench, join).step()
        bench.clock.advance(2)
        assert joiner(bench, join).step()

    board = boards.get(board_id, CALLER).board
    assert (board.state, board.error_code) == (BoardState.FAILED, code)
    assert join.errors == []
    assert bench.app.joins.attempts == {Outcome.FAILED: len(waits_s), Outcome.GIVEN_UP: 1}


def test_what_is_joined_in_the_end_has_no_error_left(bench: Bench, boards: Storyboards) -> None:
    board_id = ready(bench, boards)
    join = FakeJoin(bench, errors=[StorageFailed("busy")])
    joiner(bench, join).step()
    assert boards.get(board_id, CALLER).board.error_code == "storage_failed"

    bench.clock.advance(RETRY_S + 1)
    joiner(bench, join).step()

    board = boards.get(board_id, CALLER).board
    assert (board.state, board.error_code, board.error_message) == (
        BoardState.COMPLETED,
        None,
        None,
    )


def test_a_database_that_is_away_is_no_failure_of_a_joining(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = ready(bench, boards)

    with pytest.raises(ServiceUnavailable):
        joiner(bench, FakeJoin(bench, errors=[ServiceUnavailable("away")])).step()

    assert boards.get(board_id, CALLER).board.failures == 0


def test_a_joiner_that_stops_hands_on_what_it_was_at(bench: Bench, boards: Storyboards) -> None:
    board_id, stopping = ready(bench, boards), threading.Event()
    stopping.set()

    joiner(bench, FakeJoin(bench)).step(stopping)
    assert stored(bench, board_id) == []
    joiner(bench, FakeJoin(bench)).step()

    assert boards.get(board_id, CALLER).board.state is BoardState.COMPLETED
    assert bench.app.joins.attempts == {Outcome.DROPPED: 1, Outcome.JOINED: 1}


def test_of_many_joiners_one_takes_a_storyboard(bench: Bench, boards: Storyboards) -> None:
    ready(bench, boards)
    db = bench.app.db

    def take() -> object:
        return db.write(lambda uow: storyboards.take(uow, lease_s=LEASE_S))

    assert [take() is not None for _ in range(3)] == [True, False, False]
    bench.clock.advance(LEASE_S + 1)
    assert take() is not None


@pytest.mark.sqlite
def test_real_clips_are_joined_by_a_child_process(bench: Bench, boards: Storyboards) -> None:
    shots = [shot("one", crossfade_s=1.0), shot("two"), shot("three")]
    board_id = make(boards, *shots).board.public_id
    for rgb in (RED, GREEN, BLUE):
        succeed(bench, rgb)
    boards.keeper.tend()
    others = {name: bench.folder / "joining" / name for name in ("sb_old-1-1", "sb_new-1-1")}
    for other in others.values():
        other.mkdir(parents=True)
    os.utime(others["sb_old-1-1"], (0, 0))

    new_joiner(bench.app).step()

    result = boards.get(board_id, CALLER).board.result
    assert result is not None
    assert (result.num_frames, result.duration_s) == (192, 8.0)
    path = bench.folder / "files" / result.assets["video"].key
    assert checksums(path)[1] == result.assets["video"].sha256
    frames = decode(path).astype(int)
    for at, rgb in ((47, RED), (72, GREEN), (119, GREEN), (120, BLUE)):
        assert np.abs(frames[at] - rgb).max() <= 8, at
    assert set(result.assets) == {"video", "poster", "preview"}
    assert list((bench.folder / "joining").iterdir()) == [others["sb_new-1-1"]]  # it may yet run


@pytest.mark.sqlite
def test_a_damaged_shot_is_told_and_not_joined(bench: Bench, boards: Storyboards) -> None:
    board_id = ready(bench, boards)
    view = boards.get(board_id, CALLER)
    job = view.shots[0].shot.job
    assert job is not None
    assert job.result is not None
    (bench.folder / "files" / job.result.assets["video"].key).write_bytes(b"something else")

    new_joiner(bench.app).step()

    board = boards.get(board_id, CALLER).board
    assert (board.state, board.error_code) == (BoardState.JOINING, BadOutput.code)  # tried again
    assert "shot 1" in str(board.error_message)


VICTIM = """
import sys
from pathlib import Path
from vidmill.settings import Settings
from vidmill.services.joining import Joiner
from vidmill.stack.joining import JoinProcess
from vidmill.storage import open_blobs
from vidmill.store.session import open_database
url, folder, now = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
settings = Settings.model_validate({"data_dir": folder, "encoder_preset": "slow"})
db = open_database(url, clock=lambda: now)
blobs = open_blobs(settings.effective_storage_url)
Joiner(db=db, blobs=blobs, join=JoinProcess(settings=settings)).step()
"""


START_S = 120.0
"""Two processes start one after the other; on a busy machine each import takes its time."""


def second_clip_key(boards: Storyboards, board_id: str) -> str:
    job = boards.get(board_id, CALLER).shots[1].shot.job
    assert job is not None
    assert job.result is not None
    return job.result.assets["video"].key


@pytest.mark.sqlite
def test_a_process_killed_in_the_middle_of_joining_leaves_it_to_another_who_joins_it_once(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = ready(bench, boards)
    clip = bench.folder / "files" / second_clip_key(boards, board_id)
    aside = clip.rename(clip.with_suffix(".aside"))
    os.mkfifo(clip)  # whoever opens it waits: here joining stands still in the middle
    arguments = [database_url(bench.folder), str(bench.folder), str(bench.clock())]
    victim = subprocess.Popen([sys.executable, "-c", textwrap.dedent(VICTIM), *arguments])

    def children() -> list[int]:
        return [p.pid for p in all_processes() if p.parent == victim.pid]

    scratch = bench.folder / "joining"
    assert wait_until(lambda: any(scratch.glob("*/shot2.mp4")), timeout_s=START_S)
    (child,) = children()
    victim.kill()
    victim.wait()
    assert wait_until(lambda: child not in {p.pid for p in all_processes()}, timeout_s=START_S)
    clip.unlink()
    aside.rename(clip)

    second = new_joiner(bench.app)
    assert not second.step()  # the lease of the dead one goes on
    bench.clock.advance(LEASE_S + 1)
    assert second.step()

    board = boards.get(board_id, CALLER).board
    assert (board.state, board.attempt) == (BoardState.COMPLETED, 2)
    assert {Path(key).parent.name for key in stored(bench, board_id)} == {"2"}
    assert len(stored(bench, board_id)) == 3
