"""Each way of being faster, on the random tiny model: what it promises of frames and of manners."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from safetensors.torch import save_file
from torch._dynamo import register_backend
from torch._dynamo.utils import counters

from tests.attention import installed
from tests.builders import make_spec
from tests.loras import make_pair, use_of
from tests.tiny_random import PROFILE_FILE
from tests.watches import RecordingWatch
from vidmill.domain.clip import Aspect, ClipSpec, Resolution, Size
from vidmill.domain.errors import JobCancelled, ModelInvalid
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames, LoraFiles
from vidmill.domain.profile import Distilled, ModelProfile, StepCache
from vidmill.engines.anatomy import anatomy_of
from vidmill.engines.speed import require_possible
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile

CPU = torch.device("cpu")
CACHE = StepCache(kind="first_block", threshold=0.2)

Open = Callable[..., WanEngine]


def tiny_profile(folder: Path, **changes: Any) -> ModelProfile:
    return dataclasses.replace(load_profile(str(folder / PROFILE_FILE)), **changes)


def spec_of(**changes: Any) -> ClipSpec:
    return make_spec(**{"profile": "tiny-random", "num_frames": 5, "steps": 6} | changes)


def draw(
    engine: WanEngine,
    watch: RecordingWatch | None = None,
    *,
    files: LoraFiles | None = None,
    **changes: Any,
) -> Frames:
    return engine.generate(
        spec_of(**changes),
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
        lora=files,
    )


def distance(one: Frames, other: Frames) -> float:
    """Return the mean difference in grey levels."""
    return float(np.abs(one.astype(int) - other).mean())


@pytest.fixture(scope="module")
def open_engine(sound_folder: Path) -> Open:
    """Opens an engine of the profile with changes; each once."""
    opened: dict[str, WanEngine] = {}

    def open_it(**changes: Any) -> WanEngine:
        if (key := repr(changes)) not in opened:
            profile = tiny_profile(sound_folder, **changes)
            opened[key] = WanEngine(profile, str(sound_folder), device="cpu", threads=1)
            opened[key].load()
        return opened[key]

    return open_it


@pytest.fixture(scope="module")
def plain(open_engine: Open) -> Frames:
    return draw(open_engine())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    folder, noise = tmp_path_factory.mktemp("pair"), torch.Generator().manual_seed(0)
    for name in ("high", "low"):
        tensors = {}
        for block in range(2):
            for layer in ("self_attn.q", "self_attn.o", "cross_attn.v"):
                prefix = f"diffusion_model.blocks.{block}.{layer}.lora"
                tensors[f"{prefix}_down.weight"] = torch.randn(4, 32, generator=noise)
                tensors[f"{prefix}_up.weight"] = torch.randn(32, 4, generator=noise)
        save_file(tensors, folder / f"{name}.safetensors")
    return Distilled(source=str(folder), high="high.safetensors", low="low.safetensors")


@pytest.fixture(scope="module", params=["fp8", "distilled", "all"])
def faster(request: pytest.FixtureRequest, open_engine: Open, pair: Distilled) -> WanEngine:
    ways: dict[str, dict[str, Any]] = {
        "fp8": {"gemm": "fp8"},
        "distilled": {"distilled": pair},
        "all": {"gemm": "fp8", "step_cache": CACHE, "compile": "eager"},
    }
    return open_engine(**ways[request.param])


def test_progress_counts_every_block_and_reaches_its_end(faster: WanEngine) -> None:
    watch = RecordingWatch()
    draw(faster, watch)
    done = [done for _, done, _ in watch.of(Phase.DENOISING)]
    assert done == sorted(done)
    assert watch.of(Phase.DENOISING)[-1] == (Phase.DENOISING, 24, 24)
    assert watch.checks >= 24


def test_a_cancel_reaches_the_next_block(faster: WanEngine) -> None:
    class Impatient(RecordingWatch):
        def check(self) -> None:
            self.is_cancel_requested = self.checks == 5
            super().check()

    watch = Impatient()
    with pytest.raises(JobCancelled, match="the test asked"):
        draw(faster, watch)
    assert watch.checks == 6


def test_brand_loras_come_and_go_and_leave_it_as_it_was(faster: WanEngine, tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, seed) for seed in (1, 2)]
    base = draw(faster)
    a, b, a_again = (
        draw(faster, lora=use_of(files), files=files) for files in (pairs[0], pairs[1], pairs[0])
    )
    assert np.array_equal(a, a_again)
    assert np.array_equal(base, draw(faster))
    assert len({frames.tobytes() for frames in (base, a, b)}) == 3


def test_fp8_draws_nearly_the_same_with_half_of_the_bytes(open_engine: Open, plain: Frames) -> None:
    engine = open_engine(gemm="fp8")
    assert 0 < distance(draw(engine), plain) < 1  # of 255; 0.3 measured
    block = engine._model.parts.pipe.transformer.blocks[0]
    assert block.attn1.to_q.weight.dtype is torch.float8_e4m3fn
    assert block.ffn.net[2].weight.dtype is torch.float8_e4m3fn
    assert engine._model.parts.pipe.transformer.proj_out.weight.dtype is torch.float32


def test_a_compiled_model_draws_the_same_bytes_and_compiles_once_for_each_shape(
    open_engine: Open, plain: Frames
) -> None:
    engine = open_engine(compile="eager")
    before = counters["stats"]["unique_graphs"]
    assert np.array_equal(draw(engine), plain)
    assert np.array_equal(draw(engine, seed=8), draw(engine, seed=8))
    draw(engine, num_frames=9)
    assert counters["stats"]["unique_graphs"] - before <= 2  # fewer if a test compiled it before


def test_more_lengths_are_compiled_than_torch_allows_by_default(open_engine: Open) -> None:
    engine = open_engine(compile="eager")
    for num_frames in range(1, 41, 4):  # ten: the ninth would fail
        frames = draw(engine, num_frames=num_frames, steps=2, flow_shift=1.0)
        assert len(frames) == num_frames


def test_a_kernel_that_no_compiler_can_follow_runs_between_two_compiled_halves(
    open_engine: Open, plain: Frames
) -> None:
    """As SageAttention's do: they are marked with `torch.compiler.disable`."""
    calls: list[int] = []

    @torch.compiler.disable
    def kernel(**inputs: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        drawn: torch.Tensor = dispatch_attention_fn(**inputs, backend=AttentionBackendName.NATIVE)
        return drawn

    with installed(kernel) as name:
        engine = open_engine(compile="eager", attention=(name, "native"))
        assert engine.identity()["attention"] == name
        calls.clear()
        before = counters["stats"]["unique_graphs"]
        assert np.array_equal(draw(engine), plain)
        assert np.array_equal(draw(engine, seed=8), draw(engine, seed=8))
        assert len(calls) == 3 * 6 * 2 * 2 * 2  # clips, steps, passes, blocks, attentions
        assert 0 < counters["stats"]["unique_graphs"] - before < 10


@pytest.mark.parametrize(("compiler", "warmed"), [("", [3840]), ("eager", [3840, 4096])])
def test_where_shapes_are_compiled_one_size_of_each_area_is_warmed(
    sound_folder: Path, compiler: str, warmed: list[int]
) -> None:
    squares = {Aspect.SQUARE: {resolution: Size(64, 64) for resolution in Resolution}}
    profile = tiny_profile(sound_folder, compile=compiler, shapes=squares)
    sizes = [size for _, size in WanEngine(profile, str(sound_folder))._warm_shapes()]
    assert [size.width_px * size.height_px for size in sizes] == warmed


def test_a_step_cache_skips_blocks_and_a_threshold_of_nothing_skips_none(
    open_engine: Open, plain: Frames
) -> None:
    def computed(threshold: float) -> tuple[int, Frames]:
        engine = open_engine(step_cache=StepCache(kind="first_block", threshold=threshold))
        calls: list[int] = []
        pipe = engine._model.parts.pipe
        for expert in (pipe.transformer, pipe.transformer_2):
            expert.blocks[1].ffn.register_forward_hook(lambda *_: calls.append(1))
        frames = draw(engine)
        return len(calls), frames

    count, frames = computed(0.0)
    assert count == 12  # 6 steps, guidance on
    assert np.array_equal(frames, plain)
    count, frames = computed(10.0)
    assert count == 4  # the first step of each expert, in both passes
    assert not np.array_equal(frames, plain)


def test_a_step_cache_keeps_what_the_memory_plan_counts_and_of_one_expert_only(
    open_engine: Open, sound_folder: Path
) -> None:
    engine = open_engine(step_cache=StepCache(kind="first_block", threshold=0.0))
    experts = engine._model.pipe.transformer, engine._model.pipe.transformer_2
    kept: list[tuple[int, int]] = []

    class Weighing(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING and done:
                kept.append((_kept_bytes(experts[0]), _kept_bytes(experts[1])))

    draw(engine, Weighing())
    planned = [
        anatomy_of(tiny_profile(sound_folder, step_cache=cache), sound_folder).denoising_bytes(
            spec_of().native, 5, gpus=1
        )
        for cache in (CACHE, None)
    ]
    whole = planned[0] - planned[1]
    assert {(whole, 0), (0, whole)} <= set(kept)  # first the one, then the other
    assert max(map(sum, kept)) == whole
    assert [_kept_bytes(expert) for expert in experts] == [0, 0]


def _kept_bytes(expert: Any) -> int:
    hook = expert.blocks[0]._diffusers_hook.get_hook("fbc_leader_block_hook")
    return sum(
        tensor.nbytes
        for state in hook.state_manager._state_cache.values()
        for value in vars(state).values()
        for tensor in (value if isinstance(value, tuple) else (value,))
        if isinstance(tensor, torch.Tensor)
    )


def test_a_distilled_pair_changes_the_frames_and_its_hash_is_told(
    open_engine: Open, pair: Distilled, plain: Frames
) -> None:
    engine = open_engine(distilled=pair)
    assert distance(draw(engine), plain) > 1
    identity = engine.identity()
    assert len(identity["distilled_sha256"]) == 64
    assert identity["attention"] == "native"


def test_a_distilled_pair_does_not_change_the_folder_it_is_fused_into(
    open_engine: Open, pair: Distilled, plain: Frames
) -> None:
    open_engine(distilled=pair)
    assert np.array_equal(draw(open_engine()), plain)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step_cache": StepCache(kind="mag", threshold=0.1)}, "'mag' is unknown.*first_block"),
        ({"compile": "magic"}, "'magic' is unknown.*inductor"),
        (
            {"step_cache": CACHE, "distilled": Distilled(source="x", high="h", low="l")},
            "remove step_cache",
        ),
    ],
    ids=["cache", "compiler", "both"],
)
def test_what_cannot_be_is_refused_before_weights_are_read(
    sound_folder: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelInvalid, match=reason):
        require_possible(tiny_profile(sound_folder, **changes), device=CPU)


def test_a_compiler_that_makes_no_code_here_is_refused_before_weights_are_read(
    sound_folder: Path,
) -> None:
    @register_backend(name="breaks")
    def breaks(_graph: object, _inputs: object) -> None:
        raise OSError("no C compiler found")

    with pytest.raises(ModelInvalid, match=r'"breaks" .* no C compiler found; .* compile = ""'):
        require_possible(tiny_profile(sound_folder, compile="breaks"), device=CPU)


def test_a_missing_pair_is_refused_before_weights_are_read(sound_folder: Path) -> None:
    pair = Distilled(source=str(sound_folder), high="gone.safetensors", low="x.safetensors")
    engine = WanEngine(
        tiny_profile(sound_folder, distilled=pair), "no such folder either", device="cpu"
    )
    with pytest.raises(ModelInvalid, match=r"lacks .*gone\.safetensors"):
        engine.load()
