"""Storyboards for tests: shots that end as told, and joiners of a few bytes or real ones."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.builders import make_result
from tests.callers import make_caller
from tests.desks import Bench
from tests.servers import WAIT_S, until
from vidmill.domain.clip import Asset, Size
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Job, Lane
from vidmill.domain.order import Order
from vidmill.domain.storyboard import BoardState, JoinedClip, ShotState
from vidmill.finishing.checksums import checksums
from vidmill.media.encode import h264_file
from vidmill.media.i420 import from_rgb
from vidmill.services.idempotency import IdempotencyKey
from vidmill.services.joining import Joiner, Keep
from vidmill.services.storyboards import Sheet, ShotOrder, Storyboards, StoryboardView
from vidmill.store import jobs, storyboards

CALLER = make_caller(lane=Lane.VIP)
SIZE = Size(64, 48)
RED, GREEN, BLUE = (220, 30, 20), (20, 180, 40), (20, 40, 210)
JOINED = b"joined"


def join_one(bench: Bench) -> bool:
    """Do what a joiner does, with a video of a few bytes; False: nothing waits."""
    taken = bench.app.db.write(lambda uow: storyboards.take(uow, lease_s=30.0))
    if taken is None:
        return False
    path = bench.folder / "joined.mp4"
    path.write_bytes(JOINED)
    key = f"{taken.public_id}/{taken.revision}/{taken.attempt}/clip.mp4"
    bench.app.blobs.put_file(key, path, content_type="video/mp4")
    video = replace(
        make_result().assets["video"],
        key=key,
        size_bytes=len(JOINED),
        sha256=hashlib.sha256(JOINED).hexdigest(),
    )
    clip = JoinedClip(
        revision=taken.revision,
        assets={"video": video},
        fps=taken.fps,
        num_frames=156,
        duration_s=6.5,
    )
    return bench.app.db.write(lambda uow: storyboards.complete(uow, taken, clip))


@contextmanager
def joining(bench: Bench) -> Iterator[None]:
    """Meanwhile, join the next storyboard whose shots are all there."""
    thread = threading.Thread(target=until, args=(lambda: join_one(bench),))
    thread.start()
    yield
    thread.join(WAIT_S)
    assert not thread.is_alive()


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
    errors: list[Exception] = field(default_factory=list)

    def __call__(self, order: Mapping[str, Any], keep: Keep) -> JoinedClip:
        self.orders.append(order)
        path = self.bench.folder / "joined.mp4"
        path.write_bytes(JOINED)
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
    app = bench.app
    return Joiner(db=app.db, blobs=app.blobs, join=join, tally=app.joins)


def told(bench: Bench) -> list[tuple[str, str]]:
    query = "SELECT type, subject FROM webhook_deliveries ORDER BY id"
    rows = bench.app.db.read(lambda conn: conn.exec_driver_sql(query).all())
    return [tuple(row) for row in rows if "storyboard" in row.type]


def stored(bench: Bench, prefix: str) -> list[str]:
    root = bench.folder / "files"
    return sorted(str(p.relative_to(root)) for p in (root / prefix).rglob("*") if p.is_file())


def states(view: StoryboardView) -> list[ShotState]:
    return [one.shot.state for one in view.shots]
