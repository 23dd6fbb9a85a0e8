import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import Distilled
from vidmill.engines.distilled import SAMPLER, Pair, fetch_pair, fuse_pair

CPU = torch.device("cpu")
WIDTH, RANK = 32, 4
NAMES = {"attn1.to_q": "self_attn.q", "attn2.to_out.0": "cross_attn.o", "ffn.net.2": "ffn.2"}
"""A layer of the block by diffusers' name and by Wan's own, which published pairs use."""


def expert(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=32, ffn_dim=WIDTH, num_layers=2, rope_max_seq_len=64,
    )  # fmt: skip


def draw(model: Any) -> Tensor:
    torch.manual_seed(7)
    inputs = torch.randn(1, 4, 2, 6, 10), torch.tensor([900]), torch.randn(1, 16, 16)
    with torch.no_grad():
        return model(*inputs, return_dict=False)[0]  # type: ignore[no-any-return]


def factors(name: str) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.randn(RANK, WIDTH, generator=noise), torch.randn(WIDTH, RANK, generator=noise)


def published(**more: Tensor) -> dict[str, Tensor]:
    """Return a file as lightx2v writes it, with alpha half of the rank."""
    tensors: dict[str, Tensor] = {}
    for block in range(2):
        for name in NAMES.values():
            down, up = factors(name)
            prefix = f"diffusion_model.blocks.{block}.{name}"
            tensors |= {f"{prefix}.lora_down.weight": down, f"{prefix}.lora_up.weight": up}
            tensors[f"{prefix}.alpha"] = torch.tensor(RANK / 2)
    return tensors | more


def write(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    save_file(tensors, path, metadata=metadata or None)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    high, low = (write(tmp_path / f"{name}.safetensors", published()) for name in ("high", "low"))
    return Pair(high, low)


def fuse(pair: Pair, high: Any, low: Any, strength: float = 1.0) -> None:
    fuse_pair(pair, high=high, low=low, strength=strength, device=CPU)


def with_adapters(model: Any, scale: float) -> Any:
    """Leave the weights alone and add each layer's `up(down(x))` to what it returns."""

    def adapter(name: str) -> Any:
        down, up = factors(name)
        return lambda _layer, inputs, output: output + scale * (inputs[0] @ down.T @ up.T)

    for block in model.blocks:
        for layer, name in NAMES.items():
            block.get_submodule(layer).register_forward_hook(adapter(name))
    return model


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_fused_pair_draws_what_adapters_draw(pair: Pair, strength: float) -> None:
    high, low = expert(1), expert(2)
    before = draw(high)
    fuse(pair, high, low, strength)
    for seed, fused in ((1, high), (2, low)):
        adapted = draw(with_adapters(expert(seed), scale=strength / 2))
        assert (draw(fused) - adapted).abs().max() < 1e-5
    assert (draw(high) - before).abs().max() > 1e-2


def test_a_file_in_diffusers_names_keeps_its_alpha_in_the_header(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for block in range(2):
        for layer, name in NAMES.items():
            down, up = factors(name)
            prefix = f"transformer.blocks.{block}.{layer}"
            tensors |= {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    settings = {"transformer.r": RANK, "transformer.lora_alpha": RANK / 2}
    file = write(tmp_path / "pair.safetensors", tensors, lora_adapter_metadata=json.dumps(settings))
    high = expert(1)
    fuse(Pair(file, file), high, expert(2))
    assert (draw(high) - draw(with_adapters(expert(1), scale=0.5))).abs().max() < 1e-5


def test_a_change_of_the_bias_is_added_too(tmp_path: Path) -> None:
    change = torch.randn(WIDTH)
    tensors = published(**{"diffusion_model.blocks.1.self_attn.k.diff_b": change})
    file = write(tmp_path / "pair.safetensors", tensors)
    high, plain = expert(1), expert(1)
    fuse(Pair(file, file), high, expert(2), strength=0.5)
    difference = high.blocks[1].attn1.to_k.bias - plain.blocks[1].attn1.to_k.bias
    assert torch.allclose(difference, change / 2, atol=1e-6)


DOWN, UP, BIAS = "k.lora_down.weight", "k.lora_up.weight", "k.diff_b"


@pytest.mark.parametrize(
    ("block", "wrong", "reason"),
    [
        (0, {DOWN: (4, 99), UP: (32, 4)}, "another shape .*attn1.to_k"),
        (0, {DOWN: (4, 32)}, "another shape"),
        (0, {BIAS: (99,)}, "another shape"),
        (7, {DOWN: (4, 32), UP: (32, 4)}, r"blocks\.7.* no linear"),
        (0, {"k.surprise": (1,)}, "no known tool"),
    ],
    ids=["width", "half", "bias", "block", "name"],
)
def test_a_file_that_does_not_fit_is_named_and_nothing_is_changed(
    pair: Pair, block: int, wrong: dict[str, tuple[int, ...]], reason: str
) -> None:
    prefix = f"diffusion_model.blocks.{block}.self_attn."
    extra = {prefix + name: torch.ones(shape) for name, shape in wrong.items()}
    write(pair.low, published(**extra))
    high, low = expert(1), expert(2)
    before = draw(high)
    with pytest.raises(
        ModelInvalid, match=rf"low\.safetensors does not fit this model: .*{reason}"
    ):
        fuse(pair, high, low)
    assert torch.equal(draw(high), before)


def test_an_empty_file_does_not_fit(tmp_path: Path) -> None:
    file = write(tmp_path / "empty.safetensors", {})
    with pytest.raises(ModelInvalid, match="it is empty"):
        fuse(Pair(file, file), nn.Module(), nn.Module())


def test_a_missing_or_torn_file_is_named_with_the_remedy(pair: Pair) -> None:
    folder = pair.high.parent
    named = Distilled(source=str(folder), high="high.safetensors", low="low.safetensors")
    assert fetch_pair(named) == pair
    pair.low.write_bytes(pair.low.read_bytes()[:-1])
    with pytest.raises(ModelInvalid, match=r"low\.safetensors .*promises .*restore it from"):
        fetch_pair(named)
    pair.low.unlink()
    with pytest.raises(ModelInvalid, match=r"lacks .*low\.safetensors; restore it"):
        fetch_pair(named)
    (folder / "low.safetensors").write_bytes(b"\x80\x04}q\x00." * 9)  # a pickle, say
    with pytest.raises(ModelInvalid, match="not safetensors"):
        fetch_pair(named)


def test_the_hash_of_a_pair_tells_its_files_and_their_order(pair: Pair, tmp_path: Path) -> None:
    other = write(tmp_path / "other.safetensors", published(x=torch.ones(1)))
    hashes = {
        some.sha256()
        for some in (pair, Pair(pair.high, other), Pair(other, pair.low), Pair(pair.low, pair.high))
    }
    assert len(hashes) == 3  # both files of the pair hold the same bytes


def test_the_sampler_takes_plain_euler_steps_at_the_levels_the_pair_was_trained_for() -> None:
    sampler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, **SAMPLER
    )
    sampler.set_timesteps(4)
    levels = sampler.sigmas.tolist()
    assert np.round(levels, 2).tolist() == [1.0, 0.94, 0.83, 0.63, 0.0]
    found = torch.linspace(-1, 1, 5)[None]
    wanted = found.clone()
    for step, time in enumerate(sampler.timesteps):
        flow = torch.sin(3 * found) + levels[step]
        found = sampler.step(flow, time, found, return_dict=False)[0]
        wanted += (levels[step + 1] - levels[step]) * (torch.sin(3 * wanted) + levels[step])
    assert torch.allclose(found, wanted, atol=1e-6)
