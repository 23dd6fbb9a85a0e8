"""LoRA pairs for tests: random ones for the random tiny model, named as each tool does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.desks import Bench
from vidmill.domain.lora import LoraUse
from vidmill.domain.lora_files import expert_linears
from vidmill.domain.ports import LoraFiles
from vidmill.engines.lora_file import read_facts
from vidmill.services.loras import WantedLora
from vidmill.wiring import loras_of

TINY_RANDOM: Mapping[str, Any] = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "ffn_dim": 64,
}
"""How large the experts of `tests.tiny_random` are."""

TINY: Mapping[str, Any] = {
    "num_layers": 6,
    "num_attention_heads": 5,
    "attention_head_dim": 32,
    "ffn_dim": 448,
}
"""The same of the shipped tiny model."""

Tensors = dict[str, NDArray[Any]]

_ORIGINAL = {
    **{
        f"{ours}.{part}": f"{theirs}.{short}"
        for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for part, short in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))
    },
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


def original(module: str) -> str:
    """Return Wan's own name of diffusers' *module*."""
    blocks, number, layer = module.split(".", 2)
    return f"{blocks}.{number}.{_ORIGINAL[layer]}"


NAMES: Mapping[str, Callable[[str], tuple[str, str, str]]] = {
    "diffusers": lambda m: (
        f"transformer.{m}.lora_A.weight",
        f"transformer.{m}.lora_B.weight",
        f"transformer.{m}.alpha",
    ),
    "lightx2v": lambda m: (
        f"diffusion_model.{original(m)}.lora_down.weight",
        f"diffusion_model.{original(m)}.lora_up.weight",
        f"diffusion_model.{original(m)}.alpha",
    ),
    "comfyui": lambda m: (
        f"diffusion_model.{original(m)}.lora_A.weight",
        f"diffusion_model.{original(m)}.lora_B.weight",
        f"diffusion_model.{original(m)}.alpha",
    ),
    "kohya": lambda m: (
        f"lora_unet_{original(m).replace('.', '_')}.lora_down.weight",
        f"lora_unet_{original(m).replace('.', '_')}.lora_up.weight",
        f"lora_unet_{original(m).replace('.', '_')}.alpha",
    ),
}
"""Names of down, up and alpha of a layer, by the tool that writes such files."""


def lora_tensors(
    seed: int,
    *,
    rank: int = 4,
    style: str = "diffusers",
    alpha: float | None = None,
    config: Mapping[str, Any] = TINY_RANDOM,
    dtype: Any = np.float32,
) -> Tensors:
    """Return a random LoRA for every linear layer of one expert."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (outside, inside) in expert_linears(config).items():
        down, up, scale = NAMES[style](module)
        tensors[down] = random.normal(0, 0.3, (rank, inside)).astype(dtype)
        tensors[up] = random.normal(0, 0.3, (outside, rank)).astype(dtype)
        if alpha is not None:
            tensors[scale] = np.array(alpha, dtype)
    return tensors


def save(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata=metadata)
    return path


def make_pair(folder: Path, seed: int, **changes: Any) -> LoraFiles:
    """Write a random pair below *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    return LoraFiles(
        high=save(folder / f"{seed}-high.safetensors", lora_tensors(seed, **changes)),
        low=save(folder / f"{seed}-low.safetensors", lora_tensors(seed + 1000, **changes)),
    )


def use_of(files: LoraFiles, *, name: str = "acme", strength: float = 1.0) -> LoraUse:
    high, low = read_facts(files.high), read_facts(files.low)
    return LoraUse(name=name, high=high.sha256, low=low.sha256, strength=strength)


def upload(client: Any, files: LoraFiles, name: str = "acme", **fields: Any) -> Any:
    """Send the pair as a form; return the answer."""
    data = {"name": name, "licence": "own work", **fields}
    with files.high.open("rb") as high, files.low.open("rb") as low:
        parts = {"high": ("high.safetensors", high), "low": ("low.safetensors", low)}
        return client.post("/v1/t2v/loras", data=data, files=parts)


def share(bench: Bench, files: LoraFiles, name: str = "house") -> None:
    """Add the pair for every tenant, as an operator does."""
    wanted = WantedLora(name=name, licence="CC0")
    loras_of(bench.app).add(None, wanted, {"high": files.high, "low": files.low})


def generate(bench: Bench, **lora: Any) -> Any:
    """Ask for a clip with `acme`; return the answer."""
    body = {"prompt": "a red ball", "lora": {"name": "acme", **lora}, "cache": False}
    return bench.client.post("/v1/t2v/generate", json=body)
