"""A Vidmill whose engine is another Vidmill, through each of the APIs that it speaks for others."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from tests import servers
from tests.builders import make_result, make_spec
from tests.desks import KEY, Bench, make_bench
from tests.orders import open_remote_profile, remote_profile
from tests.servers import Server, working
from tests.watches import CancelledOnceOrdered, RecordingWatch
from vidmill.domain.clip import Aspect, Resolution, Size
from vidmill.domain.errors import EngineFailed, JobCancelled, SpecUnsupported
from vidmill.domain.job import Job
from vidmill.domain.ports import Engine, Frames
from vidmill.domain.remote import Cancel
from vidmill.media import i420
from vidmill.media.encode import h264_file
from vidmill.store import jobs

pytestmark = pytest.mark.sqlite

SIZE = Size(832, 480)
RULES: dict[str, dict[str, Any]] = {
    "openai_videos": {
        "omit": frozenset({"num_frames", "size"}),
        "extra": {"cache": False, "use_default_negative_prompt": False},
    },
    "dashscope": {
        "model": "wan2.2-t2v-plus",
        "extra": {"cache": False, "use_default_negative_prompt": False, "frame_rate": 16},
    },
}
PATHS = {"openai_videos": "/v1", "dashscope": "/api/v1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(make_bench(tmp_path_factory.mktemp("back"), public_url=""))
    yield server
    server.stop()
    server.bench.close()


@pytest.fixture(params=sorted(PATHS))
def engine(request: pytest.FixtureRequest, server: Server) -> Iterator[Engine]:
    """An engine whose profile is as docs/remote.md says: the other's sizes, rate and model."""
    kind = request.param
    rules = {"cancel": Cancel.NOW, "frames_short": 1, "poll_s": (0.01, 0.02), **RULES[kind]}
    profile = replace(
        remote_profile(kind, **rules),
        name="front",
        sizes={Resolution.P480: SIZE},
        shapes={Aspect.SQUARE: {Resolution.P480: Size(624, 624)}},
        native_fps=16,
    )
    engine = open_remote_profile(profile, server.url + PATHS[kind], key=KEY)
    yield engine
    engine.close()


def order(engine: Engine, watch: RecordingWatch | None = None, **changes: Any) -> Frames:
    values = {"profile": "front", "native": SIZE, "native_fps": 16, "num_frames": 49, **changes}
    return engine.generate(
        make_spec(**values),
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
    )


def deliver(bench: Bench, job: Job) -> None:
    """Store what was asked for, in a colour that the seed decides, as a worker does."""
    size, path = job.spec.size, bench.folder / "clip.mp4"
    colour = np.full((size.height_px, size.width_px, 3), (job.spec.seed, 99, 9), np.uint8)
    picture = i420.from_rgb(colour, size)
    with h264_file(path, size, fps=job.spec.fps, preset="ultrafast", crf=12) as write:
        for _ in range(job.spec.delivered_frames):
            write(picture)
    key = f"{job.public_id}/{job.attempt}/video.mp4"
    bench.app.blobs.put_file(key, path, content_type="video/mp4")
    data = path.read_bytes()
    video = replace(
        make_result().assets["video"],
        key=key,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    bench.settle(job, jobs.Succeeded(result=make_result(assets={"video": video})))


def test_a_clip_comes_back_in_the_size_length_and_colour_it_was_made_in(
    server: Server, engine: Engine
) -> None:
    with working(server.bench, deliver):
        frames = order(engine, native=Size(480, 832), seed=200)
    assert frames.shape == (49, 832, 480, 3)
    some = frames[::12, ::16, ::16].astype(int)
    assert np.abs(some - (200, 99, 9)).max() <= 4


@pytest.mark.parametrize(("duration_s", "num_frames"), [(3.1, 53), (3.9, 65), (9.9, 161)])
def test_a_length_between_two_strides_comes_back_whole(
    server: Server, engine: Engine, duration_s: float, num_frames: int
) -> None:
    with working(server.bench, deliver):
        frames = order(engine, duration_s=duration_s, num_frames=num_frames)
    assert len(frames) == num_frames


def test_the_other_is_asked_for_just_this_clip(server: Server, engine: Engine) -> None:
    asked: list[Job] = []

    def note(bench: Bench, job: Job) -> None:
        asked.append(job)
        deliver(bench, job)

    with working(server.bench, note):
        order(engine, prompt="a green star", negative_prompt="blur", seed=11)
    (job,) = asked
    spec = job.spec
    assert (spec.prompt, spec.negative_prompt, spec.seed) == ("a green star", "blur", 11)
    assert (spec.size, spec.fps, spec.duration_s) == (SIZE, 16, 3.0)


def test_a_failure_there_is_a_retryable_failure_here_with_its_reason(
    server: Server, engine: Engine
) -> None:
    with (
        working(server.bench, servers.fail),
        pytest.raises(EngineFailed, match="every frame is black"),
    ):
        order(engine)


def test_what_the_other_does_not_offer_is_refused_with_its_reason(engine: Engine) -> None:
    with pytest.raises(SpecUnsupported, match="prompt"):
        order(engine, prompt="long " * 1000)


class Witness(CancelledOnceOrdered):
    """Notes at each check how many clips the other has not done with."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.seen: list[int] = []
        self._bench = bench

    def check(self) -> None:
        self.seen.append(open_count(self._bench))
        super().check()


def open_count(bench: Bench) -> int:
    states = text("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')")
    count: int = bench.app.db.read(lambda conn: conn.execute(states).scalar_one())
    return count


def test_a_cancel_reaches_the_other_before_a_worker_takes_it(
    server: Server, engine: Engine
) -> None:
    witness = Witness(server.bench)
    with pytest.raises(JobCancelled):
        order(engine, witness)
    assert witness.seen == [0, 1]
    assert open_count(server.bench) == 0
    assert not engine.is_busy()
