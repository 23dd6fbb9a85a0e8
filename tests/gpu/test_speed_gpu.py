"""Ways of being faster that only a CUDA device can show."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.builders import make_spec
from tests.tiny_random import PROFILE_FILE, shared_tiny_random
from tests.watches import RecordingWatch
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames
from vidmill.domain.profile import StepCache
from vidmill.engines.drain import Drain, carrier
from vidmill.engines.fp8 import Fp8Linear, require_fp8
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


def open_engine(folder: Path, **changes: Any) -> WanEngine:
    profile = dataclasses.replace(load_profile(str(folder / PROFILE_FILE)), **changes)
    engine = WanEngine(profile, str(folder), device="cuda")
    engine.load()
    return engine


def draw(engine: WanEngine, watch: RecordingWatch | None = None) -> Frames:
    spec = make_spec(profile="tiny-random", num_frames=13, steps=6)
    return engine.generate(
        spec, allocate=lambda shape: np.zeros(shape, np.uint8), watch=watch or RecordingWatch()
    )


@pytest.mark.parametrize(("inside", "outside"), [(5120, 13824), (13824, 5120)])
def test_an_8_bit_layer_of_a14b_differs_from_bf16_by_its_two_roundings(
    inside: int, outside: int
) -> None:
    require_fp8(CUDA)
    torch.manual_seed(0)
    linear = nn.Linear(inside, outside, device=CUDA, dtype=torch.bfloat16)
    values = torch.randn(1, 1024, inside, device=CUDA, dtype=torch.bfloat16)
    with torch.no_grad():
        wanted, found = linear(values).float(), Fp8Linear(linear)(values).float()
    assert float((found - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"gemm": "fp8"},
        {"compile": "inductor"},
        {
            "gemm": "fp8",
            "compile": "inductor",
            "step_cache": StepCache(kind="first_block", threshold=0.2),
        },
    ],
    ids=["fp8", "compile", "all"],
)
def test_a_faster_engine_draws_the_same_bytes_after_a_cancel(
    model_folder: Path, changes: dict[str, Any]
) -> None:
    engine = open_engine(model_folder, **changes)
    first = draw(engine)
    for phase in (Phase.DENOISING, Phase.DECODING):
        with pytest.raises(JobCancelled):
            draw(engine, RecordingWatch(cancel_in=phase, cancel_at_report=2))
        assert np.array_equal(first, draw(engine))
    engine.close()


def test_frames_that_land_while_others_are_drawn_are_the_same_as_those_waited_for() -> None:
    torch.manual_seed(0)
    chunks = [torch.randn(1, 3, 4, 720, 1280, device=CUDA) for _ in range(5)]
    clips = []
    for carry in (carrier(CUDA), None):
        frames = np.zeros((20, 720, 1280, 3), np.uint8)
        source = [chunk if carry else chunk.cpu() for chunk in chunks]
        drain = Drain(frames, None, on_chunk=lambda *_: None, carry=carry)
        for chunk in source:
            drain(None, None, chunk)
        drain.finish()
        clips.append(frames)
    # The two devices may round a value that lies between two grey levels to either.
    assert np.abs(clips[0].astype(int) - clips[1]).max() <= 1
