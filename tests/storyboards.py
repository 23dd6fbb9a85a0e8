"""Joining storyboards by hand, for tests of what lies before and behind it."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.builders import make_result
from tests.desks import Bench
from tests.servers import WAIT_S, until
from vidmill.domain.storyboard import JoinedClip
from vidmill.store import storyboards

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
