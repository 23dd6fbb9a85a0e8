import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.builders import make_spec
from tests.loras import make_pair, use_of
from tests.tiny_random import PROFILE_FILE
from tests.watches import RecordingWatch
from vidmill.domain.errors import EngineOutOfMemory, JobCancelled, ModelInvalid
from vidmill.domain.job import Phase
from vidmill.domain.ports import Picture
from vidmill.domain.profile import Layout, ModelProfile
from vidmill.engines.placement import (
    AUTO,
    StoredInFp8,
    Visitor,
    choose_layout,
    smaller_layout,
    store_in_fp8,
)
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile

QUALITY = load_profile("a14b-quality")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def tiny(folder: Path, **changes: Any) -> ModelProfile:
    profile = load_profile(str(folder / PROFILE_FILE))
    return dataclasses.replace(profile, **{"layouts": tuple(Layout)} | changes)


@pytest.mark.parametrize(
    ("free_gb", "layout"), [(141, "resident"), (80, "parked"), (48, "fp8"), (24, "offload")]
)
def test_auto_is_planned_from_the_memory_that_is_free(free_gb: int, layout: str) -> None:
    chosen = choose_layout(
        QUALITY, "Wan-AI/none", AUTO, device=CUDA, measure=lambda _: free_gb * 10**9
    )
    assert chosen == layout


@pytest.mark.parametrize(
    ("gpus", "free_gb", "layout"), [(1, 38, "offload"), (2, 38, "fp8"), (8, 80, "parked")]
)
def test_gpus_that_share_a_clip_are_planned_for_as_such(
    gpus: int, free_gb: int, layout: str
) -> None:
    """Beside an expert in `fp8`, 38 GB have room for half a forward, but not for a whole one; the
    decode is not divided, so 80 GB stay `parked`."""
    chosen = choose_layout(
        QUALITY, "Wan-AI/none", AUTO, device=CUDA, gpus=gpus, measure=lambda _: free_gb * 10**9
    )
    assert chosen == layout


def test_a_gpu_too_full_for_any_layout_is_no_memory_with_the_numbers() -> None:
    with pytest.raises(EngineOutOfMemory, match=r"fits the 9\.0 GB .* smallest needs 18\.\d GB"):
        choose_layout(QUALITY, "Wan-AI/none", AUTO, device=CUDA, measure=lambda _: 9 * 10**9)


def test_a_layout_that_is_asked_for_is_taken_unplanned_if_the_profile_has_it(
    sound_folder: Path,
) -> None:
    profile = tiny(sound_folder, layouts=(Layout.RESIDENT, Layout.PARKED))
    source = str(sound_folder)
    assert choose_layout(profile, source, "parked", device=CUDA) is Layout.PARKED
    with pytest.raises(ModelInvalid, match=r"no layout 'fp8'.* auto or one of: resident, parked"):
        choose_layout(profile, source, "fp8", device=CUDA)


def test_auto_on_a_cpu_is_the_first_of_the_profile(sound_folder: Path) -> None:
    profile = tiny(sound_folder, layouts=(Layout.PARKED, Layout.FP8))
    assert choose_layout(profile, str(sound_folder), AUTO, device=CPU) is Layout.PARKED


def test_a_visitor_comes_to_the_device_and_leaves_with_its_weights_untouched() -> None:
    module = nn.Linear(4, 4)
    kept = module.weight.detach().clone()
    visitor = Visitor(module, device=CPU)
    seen = []
    for move in (visitor.come, visitor.come, visitor.leave, visitor.leave):
        move()
        seen.append(visitor.is_here)
        assert torch.equal(module.weight, kept)
    assert seen == [True, True, False, False]


def test_half_a_visit_for_want_of_memory_is_no_visit() -> None:
    module = nn.Linear(4, 4)
    visitor = Visitor(module, device=torch.device("meta"))  # which no parameter's data can go to
    with pytest.raises(RuntimeError):
        visitor.come()
    assert not visitor.is_here
    assert module.weight.device == CPU


def test_weights_stored_in_fp8_are_half_as_large_and_compute_nearly_the_same() -> None:
    torch.manual_seed(0)
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(256, 128), nn.LayerNorm(128))]).bfloat16()
    linear: Any = blocks[0][0]  # type: ignore[index]
    linear.weight.data.mul_(0.1)
    values = torch.randn(64, 256).bfloat16()
    before, size_bytes = linear(values).float(), linear.weight.nbytes

    store_in_fp8(blocks, device=CPU)

    assert type(linear) is StoredInFp8
    assert linear.weight.nbytes * 2 == size_bytes
    after = linear(values)
    assert after.dtype is torch.bfloat16
    assert (after.float() - before).norm() / before.norm() < 0.03


@pytest.mark.parametrize(
    ("layout", "remedy"),
    [("resident", "set VIDMILL_LAYOUT=parked"), ("offload", "no smaller layout is left")],
)
def test_running_out_of_memory_names_the_next_smaller_layout(
    sound_folder: Path, layout: str, remedy: str
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    engine = WanEngine(tiny(sound_folder), str(sound_folder), device="cpu", layout=layout)
    engine.load()
    engine._model.pipe.vae.decoder.register_forward_pre_hook(fail)
    with pytest.raises(EngineOutOfMemory, match=rf"out of memory.*; {remedy}") as caught:
        engine.generate(
            make_spec(profile="tiny-random", num_frames=5, steps=1),
            allocate=lambda shape: np.zeros(shape, np.uint8),
            watch=RecordingWatch(),
        )
    assert caught.value.is_retryable


def test_memory_that_runs_out_in_the_decode_takes_the_loras_off_the_device(
    sound_folder: Path, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    engine, files = (
        WanEngine(tiny(sound_folder), str(sound_folder), device="cpu"),
        make_pair(tmp_path, 1),
    )
    engine.load()
    adapters = engine._model.adapters

    def draw() -> None:
        engine.generate(
            make_spec(profile="tiny-random", num_frames=1, steps=1, lora=use_of(files)),
            allocate=lambda shape: np.zeros(shape, np.uint8),
            watch=RecordingWatch(),
            lora=files,
        )

    draw()
    assert len(adapters.held) == 1
    engine._model.pipe.vae.decoder.register_forward_pre_hook(fail)
    with pytest.raises(EngineOutOfMemory):
        draw()
    assert not adapters.held


def test_pictures_are_shown_where_the_layout_has_room_for_them(sound_folder: Path) -> None:
    shown: dict[str, list[int]] = {layout: [] for layout in Layout}
    for layout, steps in shown.items():
        engine = WanEngine(tiny(sound_folder), str(sound_folder), device="cpu", layout=layout)
        engine.load()
        engine.generate(
            make_spec(profile="tiny-random", num_frames=1, steps=8),
            allocate=lambda shape: np.zeros(shape, np.uint8),
            watch=RecordingWatch(),
            show=partial(_note, steps),
        )
        engine.close()
    assert shown == {"resident": [2, 4, 6], "parked": [2, 4, 6], "fp8": [], "offload": []}


def test_in_fp8_no_text_is_encoded_beside_the_idle_expert(sound_folder: Path) -> None:
    engine = WanEngine(tiny(sound_folder), str(sound_folder), device="cpu", layout="fp8")
    engine.load()
    high, seen = engine._model.placement._high, []
    assert high is not None
    text_encoder = engine._model.pipe.text_encoder
    text_encoder.register_forward_pre_hook(lambda *_: seen.append(high.is_here))

    def draw(prompt: str, watch: RecordingWatch) -> None:
        spec = make_spec(profile="tiny-random", num_frames=1, steps=4, prompt=prompt)
        engine.generate(spec, allocate=lambda shape: np.zeros(shape, np.uint8), watch=watch)

    with pytest.raises(JobCancelled):
        draw("cancelled", RecordingWatch(cancel_in=Phase.DENOISING, cancel_at_report=2))
    draw("after it", RecordingWatch())
    engine.close()
    assert len(seen) >= 2
    assert not any(seen)


def _note(steps: list[int], step: int, _picture: Picture) -> None:
    steps.append(step)


def test_the_remedy_skips_layouts_that_the_profile_does_not_have(sound_folder: Path) -> None:
    profile = tiny(sound_folder, layouts=(Layout.RESIDENT, Layout.OFFLOAD))
    assert "VIDMILL_LAYOUT=offload" in smaller_layout(profile, Layout.RESIDENT)
