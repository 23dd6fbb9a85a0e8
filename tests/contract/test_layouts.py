"""The core promises of an engine, asked of every profile of ours in every layout, at tiny size."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.builders import make_spec
from tests.loras import make_pair, use_of
from tests.tiny_random import PROFILE_FILE, shared_tiny_random
from tests.watches import RecordingWatch
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine, Frames, LoraFiles
from vidmill.domain.profile import Distilled, Layout, ModelProfile
from vidmill.engines.wan import WanEngine
from vidmill.profiles import all_profiles, load_profile

pytestmark = pytest.mark.xdist_group("layouts")  # each engine is loaded once for the module


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


def serve(profile: ModelProfile, folder: Path, pair: Distilled | None = None) -> ModelProfile:
    """Return *profile* with what belongs to its weights taken from the tiny random model."""
    tiny = load_profile(str(folder / PROFILE_FILE))
    return dataclasses.replace(
        profile,
        source=tiny.source,
        sizes=tiny.sizes,
        shapes=tiny.shapes,
        parts=tiny.parts,
        max_text_tokens=tiny.max_text_tokens,
        compile="eager" if profile.compile else "",  # the real one takes a minute on a CPU
        distilled=pair if profile.distilled else None,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A distilled pair that fits the tiny random model."""
    folder, noise = tmp_path_factory.mktemp("pair"), torch.Generator().manual_seed(0)
    for name in ("high", "low"):
        prefix = "diffusion_model.blocks.1.self_attn.q.lora"
        tensors = {
            f"{prefix}_{side}.weight": torch.randn(shape, generator=noise)
            for side, shape in (("down", (4, 32)), ("up", (32, 4)))
        }
        save_file(tensors, folder / f"{name}.safetensors")
    return Distilled(source=str(folder), high="high.safetensors", low="low.safetensors")


LAYOUTS = [
    pytest.param((profile, layout), id=f"{profile.name}-{layout}")
    for profile in all_profiles()
    if profile.engine == "wan" and not profile.is_toy
    for layout in profile.layouts
]


@pytest.fixture(scope="module", params=LAYOUTS)
def served(request: pytest.FixtureRequest, model_folder: Path, pair: Distilled) -> Iterator[Engine]:
    """Each shipped profile in each of its layouts, at tiny size."""
    profile, layout = request.param
    profile = serve(profile, model_folder, pair)
    engine = WanEngine(profile, str(model_folder), device="cpu", threads=1, layout=layout)
    engine.load()
    yield engine
    engine.close()


def spec_for(engine: Engine, **changes: Any) -> ClipSpec:
    profile = load_profile(engine.identity()["name"])
    its: dict[str, Any] = {
        "profile": profile.name,
        "num_frames": 5,
        "steps": min(profile.steps, 4),
        "guidance_scale": profile.guidance_scale,
        "guidance_scale_2": profile.guidance_scale_2,
        "flow_shift": profile.flow_shift,
    }
    return make_spec(**its | changes)


def generate(
    engine: Engine,
    spec: ClipSpec,
    watch: RecordingWatch | None = None,
    lora: LoraFiles | None = None,
) -> Frames:
    return engine.generate(
        spec,
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
        lora=lora,
    )


def test_every_profile_and_layout_keeps_the_core_promises(served: Engine) -> None:
    first = generate(served, spec_for(served))
    assert (first.shape, first.dtype) == ((5, 48, 80, 3), np.dtype(np.uint8))
    assert first.std() > 0
    assert np.array_equal(first, generate(served, spec_for(served)))
    for phase in (Phase.DENOISING, Phase.DECODING):
        with pytest.raises(JobCancelled):
            generate(
                served,
                spec_for(served, seed=8, prompt=f"cancelled while {phase}"),
                RecordingWatch(cancel_in=phase, cancel_at_report=2),
            )
        assert np.array_equal(first, generate(served, spec_for(served)))


def test_a_lora_comes_and_goes_in_every_profile_and_layout(served: Engine, tmp_path: Path) -> None:
    def styled(files: LoraFiles) -> Frames:
        spec = spec_for(served, lora=use_of(files, strength=0.1))
        return generate(served, spec, lora=files)

    one, other = make_pair(tmp_path, 1), make_pair(tmp_path, 2)
    base, first, second = generate(served, spec_for(served)), styled(one), styled(other)
    assert len({frames.tobytes() for frames in (base, first, second)}) == 3
    assert np.array_equal(first, styled(one))
    assert np.array_equal(base, generate(served, spec_for(served)))


def test_every_layout_but_fp8_draws_the_same_clip(model_folder: Path) -> None:
    drawn = {}
    profile = serve(load_profile("a14b-quality"), model_folder)
    for layout in profile.layouts:
        engine = WanEngine(profile, str(model_folder), device="cpu", threads=1, layout=layout)
        engine.load()
        drawn[layout] = generate(engine, spec_for(engine)).astype(int)
        engine.close()
    exact = drawn[Layout.RESIDENT]
    assert np.array_equal(exact, drawn[Layout.PARKED])
    assert np.array_equal(exact, drawn[Layout.OFFLOAD])
    assert 0 < np.abs(exact - drawn[Layout.FP8]).mean() < 8  # of 255: rounded weights
