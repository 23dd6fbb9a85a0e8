"""One clip on two GPUs: what the CPU rehearsal of tests/service/test_ranks.py cannot show."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.builders import make_spec
from tests.groups import Group
from tests.tiny_random import PROFILE_FILE, shared_tiny_random
from tests.waiting import wait_until
from tests.watches import RecordingWatch
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine, Frames
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"),
]


def draw(engine: Engine, num_frames: int, watch: RecordingWatch | None = None) -> Frames:
    spec = make_spec(profile="tiny-random", num_frames=num_frames, steps=4)
    return engine.generate(
        spec, allocate=lambda shape: np.zeros(shape, np.uint8), watch=watch or RecordingWatch()
    )


def test_two_gpus_draw_what_one_draws_and_a_dead_rank_is_answered_for(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> None:
    folder: Path = shared_tiny_random(tmp_path_factory, worker_id)
    profile = folder / PROFILE_FILE
    alone = WanEngine(load_profile(str(profile)), str(folder), device="cuda:0")
    group = Group(profile, folder, devices=("cuda:0", "cuda:1"))
    alone.load()
    group.engine.load()
    for num_frames in (5, 9):  # shares of one size, and of two
        frames = draw(group.engine, num_frames)
        assert np.abs(frames.astype(int) - draw(alone, num_frames)).mean() < 2
        for phase in (Phase.DENOISING, Phase.DECODING):
            with pytest.raises(JobCancelled):
                draw(group.engine, num_frames, RecordingWatch(cancel_in=phase))
            assert np.array_equal(frames, draw(group.engine, num_frames))
    began = time.monotonic()
    os.kill(group.mate, signal.SIGKILL)
    assert wait_until(lambda: bool(group.given_up), timeout_s=10), time.monotonic() - began
    group.engine.close()
