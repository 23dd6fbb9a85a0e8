"""What only a CUDA device can show. `VIDMILL_GPU_MODEL`, a folder or hub id of A14B, adds that."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import make_spec
from tests.tiny_random import PROFILE_FILE, shared_tiny_random
from tests.watches import RecordingWatch
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames
from vidmill.domain.profile import Layout
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile, resolve_source

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


def open_engine(folder: Path, *, device: str, layout: str = "resident") -> WanEngine:
    profile = load_profile(str(folder / PROFILE_FILE))
    profile = dataclasses.replace(profile, layouts=tuple(Layout))
    engine = WanEngine(profile, str(folder), device=device, layout=layout)
    engine.load()
    return engine


def draw(engine: WanEngine, watch: RecordingWatch | None = None) -> Frames:
    spec = make_spec(profile="tiny-random", num_frames=9, steps=4)
    return engine.generate(
        spec, allocate=lambda shape: np.zeros(shape, np.uint8), watch=watch or RecordingWatch()
    )


@pytest.mark.parametrize("layout", Layout)
def test_the_same_seed_draws_the_same_bytes_before_and_after_a_cancel(
    model_folder: Path, layout: Layout
) -> None:
    engine = open_engine(model_folder, device="cuda", layout=layout)
    first = draw(engine)
    for phase in (Phase.DENOISING, Phase.DECODING):
        with pytest.raises(JobCancelled):
            draw(engine, RecordingWatch(cancel_in=phase, cancel_at_report=2))
        assert np.array_equal(first, draw(engine))
    engine.close()


def test_what_waits_on_the_host_is_pinned_and_what_was_read_through_is_given_back(
    model_folder: Path,
) -> None:
    engine = open_engine(model_folder, device="cuda", layout="parked")
    waiting = list(engine._model.pipe.text_encoder.parameters())
    assert all(parameter.is_pinned() for parameter in waiting)
    held = sum(parameter.nbytes for parameter in waiting)
    assert torch.cuda.host_memory_stats()["allocated_bytes.current"] < 2 * held + 2**20
    engine.close()


def test_gpu_and_cpu_start_from_the_same_noise_and_draw_nearly_the_same(
    model_folder: Path,
) -> None:
    clips = [
        draw(open_engine(model_folder, device=device)).astype(int) for device in ("cuda", "cpu")
    ]
    assert np.abs(clips[0] - clips[1]).mean() < 2


@pytest.fixture(scope="module")
def a14b() -> Iterator[WanEngine]:
    source = os.environ.get("VIDMILL_GPU_MODEL")
    if not source:
        pytest.skip("VIDMILL_GPU_MODEL names no folder of A14B")
    profile = load_profile("a14b-quality")
    engine = WanEngine(profile, resolve_source(profile, source), device="cuda")
    engine.load()
    yield engine
    engine.close()


def a14b_spec() -> ClipSpec:
    profile = load_profile("a14b-quality")
    native = profile.sizes[make_spec().resolution]
    return make_spec(
        profile=profile.name, native=native, num_frames=81, native_fps=16, steps=4,
        guidance_scale=4.0, flow_shift=12.0,
    )  # fmt: skip


def test_a_cancel_in_the_middle_of_a_long_step_takes_less_than_a_second(a14b: WanEngine) -> None:
    class TimedCancel(RecordingWatch):
        flagged_at = 0.0

        def check(self) -> None:
            if not self.flagged_at and time.monotonic() - started > 5:
                self.flagged_at = time.monotonic()
                self.is_cancel_requested = True
                return
            super().check()

    watch, started = TimedCancel(), time.monotonic()
    with pytest.raises(JobCancelled):
        a14b.generate(a14b_spec(), allocate=lambda shape: np.zeros(shape, np.uint8), watch=watch)
    assert time.monotonic() - watch.flagged_at < 1
