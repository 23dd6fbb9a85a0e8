"""What becomes of storyboards: shots that end, are replaced or cancelled; joining, and its ends."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import make_result
from tests.callers import make_caller
from tests.clips import decode
from tests.desks import Bench, database_url, make_bench
from tests.waiting import wait_until
from vidmill.api.desk import Desk
from vidmill.domain.clip import Asset, Size
from vidmill.domain.errors import (
    BadOutput,
    InvalidRequest,
    JobCancelled,
    PermissionDenied,
    QueueFull,
    ServiceUnavailable,
    StorageFailed,
    StoryboardNotFound,
    StoryboardStateConflict,
    WorkError,
)
from vidmill.domain.job import Job, JobState, Lane
from vidmill.domain.order import Order
from vidmill.domain.storyboard import BoardState, JoinedClip, ShotState
from vidmill.finishing.checksums import checksums
from vidmill.media.encode import h264_file
from vidmill.media.i420 import from_rgb
from vidmill.services.joining import LEASE_S, RETRY_S, Joiner, Keep
from vidmill.services.storyboards import Sheet, ShotOrder, Storyboards, StoryboardView
from vidmill.services.submission import IdempotencyKey
from vidmill.stack.joining import new_joiner
from vidmill.storage.local import LocalBlobs
from vidmill.store import jobs, storyboards
from vidmill.worker.proc import all_processes

CALLER = make_caller(lane=Lane.VIP)
SIZE = Size(64, 48)
RED, GREEN, BLUE, WHITE = (220, 30, 20), (20, 180, 40), (20, 40, 210), (240, 240, 240)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def boards(bench: Bench) -> Storyboards:
    return Desk.of(bench.app).storyboards


def shot(prompt: str = "a ball", *, crossfade_s: float = 0.0, **order: Any) -> ShotOrder:
    values = {"duration_s": 3.0, "cache": False, "resolution": "480p", **order}
    return ShotOrder(order=Order(prompt=prompt, **values), crossfade_s=crossfade_s)


def make(
    boards: Storyboards, *shots: ShotOrder, key: IdempotencyKey | None = None, **sheet: Any
) -> StoryboardView:
    common = {"name": None, "resolution": "480p", "aspect_ratio": "16:9", "fps": 24}
    given = Sheet(**{**common, "priority": "normal", **sheet})
    return boards.create(given, shots or (shot("one"), shot("two"), shot("three")), CALLER, key=key)


def succeed(bench: Bench, rgb: tuple[int, int, int] = RED, *, frames: int = 72) -> Job:
    """Let the next job end with a real clip of one colour."""
    job = bench.claim()
    path = bench.folder / "shot.mp4"
    picture = from_rgb(np.full((SIZE.height_px, SIZE.width_px, 3), rgb, np.uint8), SIZE)
    with h264_file(path, SIZE, fps=24, preset="ultrafast", crf=12) as write:
        for _ in range(frames):
            write(picture)
    md5, sha256 = checksums(path)
    key = f"{job.public_id}/{job.attempt}/clip.mp4"
    bench.app.blobs.put_file(key, path, content_type="video/mp4")
    video = Asset(
        key=key,
        content_type="video/mp4",
        size_bytes=path.stat().st_size,
        md5=md5,
        sha256=sha256,
        width_px=SIZE.width_px,
        height_px=SIZE.height_px,
    )
    bench.settle(job, jobs.Succeeded(result=make_result(assets={"video": video})))
    return job


def fail(bench: Bench) -> None:
    bench.settle(bench.claim(), jobs.Failed(code="bad_output", message="it was black"))


def ready(bench: Bench, boards: Storyboards) -> str:
    """Return the id of a storyboard whose three shots are there."""
    board_id = make(boards).board.public_id
    for rgb in (RED, GREEN, BLUE):
        succeed(bench, rgb)
    assert boards.get(board_id, CALLER).board.state is BoardState.JOINING
    return board_id


@dataclass
class FakeJoin:
    """Stores a file of a few bytes; or does what it is told."""

    bench: Bench
    orders: list[Mapping[str, Any]] = field(default_factory=list)
    errors: list[WorkError] = field(default_factory=list)

    def __call__(self, order: Mapping[str, Any], keep: Keep) -> JoinedClip:
        self.orders.append(order)
        path = self.bench.folder / "joined.mp4"
        path.write_bytes(b"joined")
        key = f"{order['prefix']}/clip.mp4"
        self.bench.app.blobs.put_file(key, path, content_type="video/mp4")
        if self.errors:
            raise self.errors.pop(0)
        if not keep(0.5):
            raise JobCancelled("as asked")
        video = make_result().assets["video"]
        assets = {"video": replace(video, key=key)}
        return JoinedClip(revision=0, assets=assets, fps=24, num_frames=216, duration_s=9.0)


def joiner(bench: Bench, join: FakeJoin) -> Joiner:
    return Joiner(db=bench.app.db, blobs=bench.app.blobs, join=join)


def told(bench: Bench) -> list[tuple[str, str]]:
    query = "SELECT type, subject FROM webhook_deliveries ORDER BY id"
    rows = bench.app.db.read(lambda conn: conn.exec_driver_sql(query).all())
    return [tuple(row) for row in rows if "storyboard" in row.type]


def stored(bench: Bench, prefix: str) -> list[str]:
    root = bench.folder / "files"
    return sorted(str(p.relative_to(root)) for p in (root / prefix).rglob("*") if p.is_file())


def states(view: StoryboardView) -> list[ShotState]:
    return [one.shot.state for one in view.shots]


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
    with pytest.raises(QueueFull):
        make(Desk.of(bench.app).storyboards)
    assert bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=9)) == []
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


def test_its_own_url_hears_of_the_end(bench: Bench, boards: Storyboards) -> None:
    url = "https://93.184.215.14/hook"
    done, lost = (make(boards, webhook_url=url).board.public_id for _ in range(2))
    for _ in range(3):
        succeed(bench)
    for _ in range(3):
        fail(bench)
    boards.keeper.tend()
    joiner(bench, FakeJoin(bench)).step()

    assert told(bench) == [
        ("t2v.storyboard.failed", lost),
        ("t2v.storyboard.completed", done),
    ]


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

    job = bench.app.db.read(lambda conn: jobs.get(conn, old.public_id, 1))
    assert job is not None
    assert job.is_cancel_requested
    bench.settle(job, jobs.Cancelled(code="cancelled", message=""))
    assert states(boards.get(board_id, CALLER)) == [ShotState.ACTIVE] * 3


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


def test_a_replacement_sent_twice_under_one_key_is_made_once(
    bench: Bench, boards: Storyboards
) -> None:
    board_id, key = make(boards).board.public_id, IdempotencyKey(key="k", fingerprint="f")

    first, again = (
        boards.replace_shot(board_id, 1, shot("other"), CALLER, key=key) for _ in range(2)
    )

    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.board.revision == 2


def test_a_shot_found_in_the_cache_is_joined_at_once(bench: Bench, boards: Storyboards) -> None:
    cached = shot("one", cache=True, seed=1)
    board_id = make(boards, cached, shot("two")).board.public_id
    for _ in range(2):
        succeed(bench)

    other = make(boards, cached, replace(cached, crossfade_s=0.5))

    assert other.board.state is BoardState.JOINING
    assert boards.get(board_id, CALLER).board.state is BoardState.JOINING


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


def test_joining_that_fails_is_tried_again_later_and_then_given_up(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = ready(bench, boards)
    join = FakeJoin(bench, errors=[StorageFailed("busy") for _ in range(3)])

    assert joiner(bench, join).step()
    assert not joiner(bench, join).step()
    for wait_s in (RETRY_S, 2 * RETRY_S):
        bench.clock.advance(wait_s + 1)
        assert joiner(bench, join).step()

    board = boards.get(board_id, CALLER).board
    assert (board.state, board.error_code) == (BoardState.FAILED, "storage_failed")
    assert len(join.orders) == 3


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


def test_a_joiner_that_stops_hands_on_what_it_was_at(bench: Bench, boards: Storyboards) -> None:
    board_id, stopping = ready(bench, boards), threading.Event()
    stopping.set()

    joiner(bench, FakeJoin(bench)).step(stopping)
    assert stored(bench, board_id) == []
    joiner(bench, FakeJoin(bench)).step()

    assert boards.get(board_id, CALLER).board.state is BoardState.COMPLETED


def test_of_many_joiners_one_takes_a_storyboard(bench: Bench, boards: Storyboards) -> None:
    ready(bench, boards)
    db = bench.app.db

    def take() -> object:
        return db.write(lambda uow: storyboards.take(uow, lease_s=LEASE_S))

    assert [take() is not None for _ in range(3)] == [True, False, False]
    bench.clock.advance(LEASE_S + 1)
    assert take() is not None


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


@pytest.mark.sqlite
def test_real_clips_are_joined_by_a_child_process(bench: Bench, boards: Storyboards) -> None:
    shots = [shot("one", crossfade_s=1.0), shot("two"), shot("three")]
    board_id = make(boards, *shots).board.public_id
    for rgb in (RED, GREEN, BLUE):
        succeed(bench, rgb)
    boards.keeper.tend()

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
    assert list((bench.folder / "joining").iterdir()) == []


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


@pytest.mark.sqlite
def test_a_process_killed_in_the_middle_of_joining_leaves_it_to_another_who_joins_it_once(
    bench: Bench, boards: Storyboards
) -> None:
    board_id = ready(bench, boards)
    arguments = [database_url(bench.folder), str(bench.folder), str(bench.clock())]
    victim = subprocess.Popen([sys.executable, "-c", textwrap.dedent(VICTIM), *arguments])

    def children() -> list[int]:
        return [p.pid for p in all_processes() if p.parent == victim.pid]

    scratch = bench.folder / "joining"
    assert wait_until(lambda: any(scratch.glob("*/shot1.mp4")), timeout_s=30)  # in the middle of it
    (child,) = children()
    os.kill(child, signal.SIGSTOP)
    victim.kill()
    victim.wait()
    assert wait_until(lambda: child not in {p.pid for p in all_processes()}, timeout_s=10)

    second = new_joiner(bench.app)
    assert not second.step()  # the lease of the dead one goes on
    bench.clock.advance(LEASE_S + 1)
    assert second.step()

    board = boards.get(board_id, CALLER).board
    assert (board.state, board.attempt) == (BoardState.COMPLETED, 2)
    assert {Path(key).parent.name for key in stored(bench, board_id)} == {"2"}
    assert len(stored(bench, board_id)) == 3
