import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from tests.builders import make_spec
from tests.tiny_random import PROFILE_FILE
from tests.watches import RecordingWatch
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import (
    BadOutput,
    EngineFailed,
    EngineOutOfMemory,
    JobCancelled,
    ModelInvalid,
    SpecUnsupported,
)
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames
from vidmill.domain.profile import ModelProfile
from vidmill.engines.pipeline import Parts, choose_device, device_errors, open_folder
from vidmill.engines.reading import Homes
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile, resolve_source


def spec_of(**changes: Any) -> ClipSpec:
    return make_spec(**{"profile": "tiny-random", "num_frames": 5, "steps": 3} | changes)


def in_memory(shape: tuple[int, int, int, int]) -> Frames:
    return np.zeros(shape, np.uint8)


def open_engine(folder: Path, **changes: Any) -> WanEngine:
    profile = dataclasses.replace(load_profile(str(folder / PROFILE_FILE)), **changes)
    return WanEngine(profile, str(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def engine(sound_folder: Path) -> Iterator[WanEngine]:
    engine = open_engine(sound_folder)
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def computed(engine: WanEngine) -> Iterator[list[str]]:
    """Names the expert of each transformer block that has run, in order."""
    calls: list[str] = []
    hooks = [
        block.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name in ("transformer", "transformer_2")
        for block in getattr(engine._model.pipe, name).blocks
    ]
    yield calls
    for hook in hooks:
        hook.remove()


def test_a_cancel_inside_a_step_lets_no_further_block_run(
    engine: WanEngine, computed: list[str]
) -> None:
    class Impatient(RecordingWatch):
        def check(self) -> None:
            self.is_cancel_requested = len(computed) == 5  # of 4 a step: the second step has begun
            super().check()

    with pytest.raises(JobCancelled):
        engine.generate(spec_of(), allocate=in_memory, watch=Impatient())
    assert len(computed) == 5


def test_warming_touches_both_experts_with_both_guidance_passes(
    engine: WanEngine, computed: list[str]
) -> None:
    engine.warm(lambda *_: None)
    assert computed == ["transformer"] * 4 + ["transformer_2"] * 4


def test_without_guidance_each_step_is_one_pass(engine: WanEngine, computed: list[str]) -> None:
    spec = spec_of(guidance_scale=1.0, guidance_scale_2=1.0)
    watch = RecordingWatch()
    engine.generate(spec, allocate=in_memory, watch=watch)
    assert len(computed) == 3 * 2
    assert watch.of(Phase.DENOISING)[-1] == (Phase.DENOISING, 6, 6)


def test_guidance_for_the_second_expert_only_is_refused(engine: WanEngine) -> None:
    with pytest.raises(SpecUnsupported, match="low-noise expert only"):
        engine.generate(spec_of(guidance_scale=1.0), allocate=in_memory, watch=RecordingWatch())


def test_the_negative_prompt_is_encoded_once_for_all_clips(engine: WanEngine) -> None:
    seen: list[int] = []
    hook = engine._model.pipe.text_encoder.register_forward_pre_hook(lambda *_: seen.append(1))
    for prompt in ("one", "two", "one"):
        spec = spec_of(prompt=prompt, negative_prompt="never this", steps=1)
        engine.generate(spec, allocate=in_memory, watch=RecordingWatch())
    hook.remove()
    assert len(seen) == 3  # "never this", "one", "two"


def test_decoding_holds_at_most_one_chunk_of_floats(engine: WanEngine) -> None:
    pictures: list[int] = []

    class Pictures(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Notes the frames of every full-size RGB tensor of floats that any operation makes."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.shape[-4:-3] == (3,):
                is_picture = made.is_floating_point() and made.shape[-2:] == (48, 80)
                pictures.append(made.shape[-3] if is_picture else 0)
            return made

    with Pictures():  # type: ignore[no-untyped-call]
        engine.generate(spec_of(num_frames=13), allocate=in_memory, watch=RecordingWatch())
    assert max(pictures) == 4


def test_nan_in_the_weights_is_bad_output_not_a_clip(engine: WanEngine) -> None:
    weight = engine._model.pipe.vae.decoder.conv_out.weight
    kept = weight.data.clone()
    weight.data[0] = float("nan")
    try:
        with pytest.raises(BadOutput, match="NaN"):
            engine.generate(spec_of(), allocate=in_memory, watch=RecordingWatch())
    finally:
        weight.data.copy_(kept)


def test_a_failing_device_is_a_retryable_engine_failure(engine: WanEngine) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with …")

    hook = engine._model.pipe.transformer_2.register_forward_pre_hook(fail)
    with pytest.raises(EngineFailed, match=r"illegal memory access was encountered$") as caught:
        engine.generate(spec_of(), allocate=in_memory, watch=RecordingWatch())
    hook.remove()
    assert caught.value.is_retryable


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_no_memory_is_told_apart(error: Exception) -> None:
    with pytest.raises(EngineOutOfMemory), device_errors():
        raise error


def test_a_damaged_folder_does_not_load_and_says_which_file(folder: Path) -> None:
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(
        ModelInvalid, match=r"vae/diffusion_pytorch_model\.safetensors has .*restore"
    ):
        open_engine(folder).load()


def test_a_weight_that_no_header_check_misses_is_missed_at_load(folder: Path) -> None:
    file = folder / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["condition_embedder.time_embedder.linear_1.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelInvalid, match=r"transformer lacks weights, condition_embedder\.time"):
        open_engine(folder).load()


def test_a_tokenizer_that_does_not_parse_is_an_invalid_model(folder: Path) -> None:
    (folder / "tokenizer/tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(ModelInvalid, match="does not load"):
        open_engine(folder).load()


def test_an_attention_backend_that_is_not_installed_is_passed_over(folder: Path) -> None:
    engine = open_engine(folder, attention=("flash", "native"))
    engine.load()
    engine.close()
    with pytest.raises(ModelInvalid, match="flash"):
        open_engine(folder, attention=("flash",)).load()


def test_parts_that_the_caller_opens_are_run_and_named_as_they_are(sound_folder: Path) -> None:
    def open_parts(profile: ModelProfile, source: str, homes: Homes) -> Parts:
        assert source == "made up"
        opened = open_folder(profile, str(sound_folder), homes)
        return Parts(opened.pipe, lambda: {"sha256": "none"})

    profile = load_profile(str(sound_folder / PROFILE_FILE))
    engine = WanEngine(profile, "made up", device="cpu", open_parts=open_parts)
    engine.load()
    frames = engine.generate(spec_of(), allocate=in_memory, watch=RecordingWatch())
    assert frames.any()
    assert engine.identity()["sha256"] == "none"


def test_nothing_works_before_load(sound_folder: Path) -> None:
    engine = open_engine(sound_folder)
    for call in (engine.identity, lambda: engine.warm(lambda *_: None)):
        with pytest.raises(EngineFailed, match="not loaded"):
            call()


def test_auto_is_a_device_that_exists() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cuda:1").index == 1


def test_the_shipped_model_draws_the_background_that_the_prompt_names() -> None:
    profile = load_profile("tiny")
    engine = WanEngine(profile, resolve_source(profile), device="cpu", threads=1)
    engine.load()
    frames = engine.generate(make_spec(), allocate=in_memory, watch=RecordingWatch())
    engine.close()
    red, green, blue = np.median(frames, axis=(0, 1, 2))
    assert frames.shape == (13, 48, 80, 3)
    assert blue > max(red, green) + 40
