"""LoRAs on the random tiny pipeline: drawn with, exact, and gone without a trace."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders import make_spec
from tests.loras import NAMES, lora_tensors, make_pair, save, use_of
from tests.tiny_random import PROFILE_FILE
from tests.watches import RecordingWatch
from vidmill.domain.errors import JobCancelled, LoraInvalid
from vidmill.domain.job import Phase
from vidmill.domain.lora import LoraUse
from vidmill.domain.ports import Frames, LoraFiles
from vidmill.engines.lora import Adapters
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile


@pytest.fixture(scope="module")
def engine(sound_folder: Path) -> Iterator[WanEngine]:
    profile = load_profile(str(sound_folder / PROFILE_FILE))
    engine = WanEngine(profile, str(sound_folder), device="cpu", threads=1)
    engine.load()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[LoraFiles]:
    folder = tmp_path_factory.mktemp("loras")
    return [make_pair(folder, 1), make_pair(folder, 2, rank=2, style="kohya", alpha=1.0)]


def draw(
    engine: WanEngine,
    files: LoraFiles | None = None,
    *,
    watch: RecordingWatch | None = None,
    strength: float = 1.0,
    **changes: Any,
) -> Frames:
    use = None if files is None else use_of(files, strength=strength)
    values = {"profile": "tiny-random", "num_frames": 5, "steps": 3, "lora": use} | changes
    return engine.generate(
        make_spec(**values),
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
        lora=files,
    )


def test_a_b_a_is_bit_equal_and_so_is_the_base_after_all_of_them(
    engine: WanEngine, pairs: list[LoraFiles]
) -> None:
    base = draw(engine)
    a, b, a_again = (draw(engine, files) for files in (pairs[0], pairs[1], pairs[0]))

    assert np.array_equal(a, a_again)
    assert np.array_equal(base, draw(engine))
    assert len({frames.tobytes() for frames in (base, a, b)}) == 3


def test_the_same_holds_for_compiled_blocks_of_fp8_layers(
    sound_folder: Path, pairs: list[LoraFiles]
) -> None:
    profile = load_profile(str(sound_folder / PROFILE_FILE))
    fast = dataclasses.replace(profile, gemm="fp8", compile="eager")
    engine = WanEngine(fast, str(sound_folder), device="cpu", threads=1)
    engine.load()
    strengths = (0.0, 1.0, 0.0, 0.5, 1.0, 0.0)
    base, full, base_again, half, full_again, base_at_last = (
        draw(engine, pairs[0] if strength else None, strength=strength) for strength in strengths
    )
    engine.close()

    assert np.array_equal(base, base_again)
    assert np.array_equal(base, base_at_last)
    assert np.array_equal(full, full_again)
    assert len({frames.tobytes() for frames in (base, half, full)}) == 3


def test_less_strength_stays_nearer_to_the_base(engine: WanEngine, pairs: list[LoraFiles]) -> None:
    base = draw(engine).astype(float)
    far = [
        np.abs(base - draw(engine, pairs[0], strength=strength)).mean() for strength in (0.01, 0.5)
    ]
    assert 0 < far[0] < far[1]


@pytest.mark.parametrize("side", ["high", "low"])
def test_each_file_goes_to_its_own_expert(
    engine: WanEngine, pairs: list[LoraFiles], side: str, tmp_path: Path
) -> None:
    idle = save(tmp_path / "idle.safetensors", lora_tensors(3, alpha=0.0))
    half = LoraFiles(**{"high": idle, "low": idle, side: getattr(pairs[0], side)})
    changed: list[str] = []

    class Names(RecordingWatch):
        def check(self) -> None:
            pipe = engine._model.pipe
            for name in ("transformer", "transformer_2"):
                layer = getattr(pipe, name).blocks[0].attn1.to_q
                if bool(getattr(layer, "lora_scale", torch.tensor(0.0))):
                    changed.append(name)

    draw(engine, half, watch=Names())
    assert set(changed) == {{"high": "transformer", "low": "transformer_2"}[side]}


@pytest.mark.parametrize("phase", [Phase.DENOISING, Phase.DECODING])
def test_a_cancelled_clip_leaves_the_base_as_it_was(
    engine: WanEngine, pairs: list[LoraFiles], phase: Phase
) -> None:
    base, names = draw(engine), [*_layer_kinds(engine)]
    with pytest.raises(JobCancelled):
        draw(engine, pairs[0], watch=RecordingWatch(cancel_in=phase, cancel_at_report=2))

    assert names == [*_layer_kinds(engine)]
    assert np.array_equal(base, draw(engine))


def test_a_pair_whose_second_file_is_of_another_model_leaves_the_base_as_it_was(
    engine: WanEngine, pairs: list[LoraFiles], tmp_path: Path
) -> None:
    base = draw(engine)
    small = {"num_layers": 2, "num_attention_heads": 1, "attention_head_dim": 16, "ffn_dim": 64}
    other = save(tmp_path / "other.safetensors", lora_tensors(3, config=small))
    with pytest.raises(LoraInvalid, match="the low file of the LoRA 'acme' does not fit"):
        draw(engine, LoraFiles(high=pairs[0].high, low=other))

    assert np.array_equal(base, draw(engine))


def test_output_that_a_lora_spoils_is_the_loras_fault_and_never_retried(
    engine: WanEngine, tmp_path: Path
) -> None:
    base = draw(engine)
    tensors = {name: tensor * 1e30 for name, tensor in lora_tensors(4).items()}
    file = save(tmp_path / "huge.safetensors", tensors)
    with pytest.raises(LoraInvalid, match="LoRA 'acme' at strength 1;") as caught:
        draw(engine, LoraFiles(high=file, low=file))

    assert not caught.value.is_retryable
    assert np.array_equal(base, draw(engine))


@pytest.mark.parametrize("style", sorted(NAMES))
def test_the_names_of_every_tool_draw_the_same_clip(
    engine: WanEngine, style: str, tmp_path: Path
) -> None:
    ours = make_pair(tmp_path / "ours", 5, alpha=2.0)
    theirs = make_pair(tmp_path / "theirs", 5, alpha=2.0, style=style)
    assert np.array_equal(draw(engine, ours), draw(engine, theirs))


def test_alpha_of_a_layer_is_strength_by_another_name(engine: WanEngine, tmp_path: Path) -> None:
    plain, halved = make_pair(tmp_path / "a", 6), make_pair(tmp_path / "b", 6, alpha=2.0)
    assert np.array_equal(draw(engine, plain, strength=0.5), draw(engine, halved))


def test_alpha_in_diffusers_metadata_counts_for_every_layer(
    engine: WanEngine, tmp_path: Path
) -> None:
    tensors = lora_tensors(6)
    told = {"lora_adapter_metadata": '{"transformer.r": 4, "transformer.lora_alpha": 2}'}
    file = save(tmp_path / "m.safetensors", tensors, told)
    plain = save(tmp_path / "p.safetensors", tensors)
    assert np.array_equal(
        draw(engine, LoraFiles(high=file, low=file)),
        draw(engine, LoraFiles(high=plain, low=plain), strength=0.5),
    )


def test_what_is_added_is_what_merging_into_the_weights_would_add(tmp_path: Path) -> None:
    expert, files = _Expert(), make_pair(tmp_path, 7, config=_Expert.config)
    x = torch.randn(3, 16)
    layer: Any = expert.get_submodule("blocks.0.attn1.to_q")
    pair = _adapters(expert)._read(expert, files.high, "it")["blocks.0.attn1.to_q"]
    merged = torch.nn.functional.linear(x, layer.weight + 0.5 * pair.up @ pair.down, layer.bias)
    with _adapters(expert).applied(use_of(files, strength=0.5), files):
        assert torch.allclose(layer(x), merged, atol=1e-5)


def test_what_was_used_last_stays_on_the_device_within_its_bound(tmp_path: Path) -> None:
    expert = _Expert()
    files = [make_pair(tmp_path, seed, config=_Expert.config) for seed in (1, 2, 3)]
    one = sum(p.numel() * 4 for p in _floats(files[0]))
    adapters = _adapters(expert, capacity_bytes=2 * one)
    for number in (0, 1, 0, 2):
        with adapters.applied(use_of(files[number]), files[number]):
            pass

    assert [use_of(files[n]).key for n in (2, 0)] == [*adapters.held]
    with adapters.applied(use_of(files[0]), None):  # held: no file is read again
        pass
    with (
        pytest.raises(LoraInvalid, match="were not given"),
        adapters.applied(use_of(files[1]), None),
    ):
        pass


def test_layers_stored_in_fp8_that_are_cast_on_the_way_draw_with_it_too(tmp_path: Path) -> None:
    from diffusers.hooks import apply_layerwise_casting

    expert, files = _Expert(), make_pair(tmp_path, 8, config=_Expert.config)
    apply_layerwise_casting(expert, storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    x, layer = torch.randn(3, 16), expert.get_submodule("blocks.0.attn1.to_q")
    base = layer(x)
    with _adapters(expert).applied(use_of(files), files):
        assert not torch.allclose(layer(x), base)
    assert torch.equal(layer(x), base)


def test_a_compiled_block_draws_with_the_lora_and_returns_to_its_first_code(
    tmp_path: Path,
) -> None:
    expert, files = _Expert(), make_pair(tmp_path, 8, config=_Expert.config)
    adapters, x = _adapters(expert), torch.randn(3, 16)
    compilations: list[int] = []

    def backend(graph: Any, _inputs: object) -> Any:
        compilations.append(len(compilations))
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(expert.blocks[0], backend=backend, fullgraph=True)
    with torch.no_grad():
        base = compiled(x)
        for strength in (1.0, 0.5):
            with adapters.applied(use_of(files, strength=strength), files):
                assert torch.allclose(compiled(x), expert.blocks[0](x))
                assert not torch.allclose(compiled(x), base)
        assert torch.equal(compiled(x), base)
    assert compilations == [0, 1]  # one without a LoRA, one with any


class _Block(torch.nn.Module):
    attn1: Any
    ffn: Any

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        linear = torch.nn.Linear
        for name in ("attn1", "attn2"):
            attention: Any = torch.nn.Module()
            for part in ("to_q", "to_k", "to_v"):
                attention.add_module(part, linear(width, width))
            attention.to_out = torch.nn.ModuleList([linear(width, width)])
            self.add_module(name, attention)
        self.ffn = torch.nn.Module()
        first: Any = torch.nn.Module()
        first.proj = linear(width, inner)
        self.ffn.net = torch.nn.ModuleList([first, torch.nn.Identity(), linear(inner, width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = self.ffn.net[2](self.ffn.net[0].proj(self.attn1.to_q(x)))
        return drawn


class _Expert(torch.nn.Module):
    """The linear layers of an expert of one block, and nothing else."""

    config = {  # noqa: RUF012
        "num_layers": 1,
        "num_attention_heads": 1,
        "attention_head_dim": 16,
        "ffn_dim": 32,
    }

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([_Block(16, 32)])


def _adapters(expert: torch.nn.Module, **changes: Any) -> Adapters:
    values = {"device": torch.device("cpu"), "dtype": torch.float32, **changes}
    return Adapters((expert, _Expert()), **values)


def _floats(files: LoraFiles) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return [*load_file(files.high).values(), *load_file(files.low).values()]


def _layer_kinds(engine: WanEngine) -> Iterator[tuple[str, type]]:
    for expert in (engine._model.pipe.transformer, engine._model.pipe.transformer_2):
        yield from ((name, type(layer)) for name, layer in expert.named_modules())


def test_the_key_names_both_files_and_not_the_strength() -> None:
    use = LoraUse(name="a", high="1" * 64, low="2" * 64, strength=1.0)
    assert use.key == "1" * 16 + "2" * 16
