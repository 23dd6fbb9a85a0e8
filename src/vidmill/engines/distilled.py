"""Few-step experts: a pair of LoRA files fused into the weights while a model loads.

Fused, not kept beside them as an adapter: it is a way of serving, so it should cost nothing per
step, and brand LoRAs come and go on top of it. diffusers reads the names (its own, Wan's, those of
ComfyUI and kohya); the arithmetic is done here, in float32, without peft.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import Distilled
from vidmill.engines.hub import fetch_folder
from vidmill.engines.safetensors_header import read_shapes
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_PREFIX = "transformer."

SAMPLER: Mapping[str, Any] = {"solver_order": 1, "disable_corrector": list(range(1000))}
"""What makes UniPC the plain Euler step that such pairs are trained for. With shift 5 and 4 steps
its noise levels are 1.0, .938, .834 and .626, two for each expert. Its second order would look back
at a step of the other expert; its corrector would move what the model was taught to be given."""


@dataclass(frozen=True)
class Pair:
    """The two files of a pair, on this machine."""

    high: Path
    low: Path

    def sha256(self) -> str:
        """Return a hash over the bytes of both, the high-noise one first."""
        digest = hashlib.sha256()
        for path in (self.high, self.low):
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def fetch_pair(distilled: Distilled) -> Pair:
    """Return the files of *distilled*, downloading them (and no others) from a hub if need be.

    Raises:
        ModelInvalid: One is missing, or not whole, or no safetensors file.
    """
    names = (distilled.high, distilled.low)
    folder = Path(distilled.source)
    if not folder.is_absolute():
        folder = fetch_folder(distilled.source, distilled.revision, only=names)
    pair = Pair(*(folder / name for name in names))
    for path in (pair.high, pair.low):
        try:
            read_shapes(path)
        except FileNotFoundError:
            raise ModelInvalid(f"the distilled pair lacks {path}; {_remedy(distilled)}") from None
        except (OSError, ValueError) as error:
            raise ModelInvalid(f"{path} {error}; {_remedy(distilled)}") from error
    return pair


def fuse_pair(
    pair: Pair, *, high: nn.Module, low: nn.Module, strength: float, device: torch.device
) -> None:
    """Add *pair* to the weights of the experts, layer by layer on *device*.

    Both files are compared with the experts before either is changed.

    Raises:
        ModelInvalid: A file names a layer that the expert lacks, or has another shape.
    """
    changes = [_read(path, expert).items() for path, expert in ((pair.high, high), (pair.low, low))]
    with torch.no_grad():
        for layer, change in (item for items in changes for item in items):
            change.add_to(layer, strength, device)
    log.info("distilled_pair_fused", layers=sum(map(len, changes)), strength=strength)


@dataclass
class _Change:
    """`up @ down` for the weight, and sometimes something for the bias."""

    down: Tensor | None = None
    up: Tensor | None = None
    bias: Tensor | None = None

    def fits(self, layer: nn.Linear) -> bool:
        if self.bias is not None and (layer.bias is None or self.bias.shape != layer.bias.shape):
            return False
        if self.down is None or self.up is None:
            return self.down is self.up and self.bias is not None
        rank = self.down.shape[0]
        shapes = (self.up.shape, self.down.shape)
        return shapes == ((layer.out_features, rank), (rank, layer.in_features))

    def add_to(self, layer: nn.Linear, strength: float, device: torch.device) -> None:
        if self.down is not None and self.up is not None:
            up, down = (factor.to(device, torch.float32) for factor in (self.up, self.down))
            _add(layer.weight, up @ down * strength)
        if self.bias is not None:
            _add(layer.bias, self.bias.to(device, torch.float32) * strength)


_FIELDS = {".lora_A.weight": "down", ".lora_B.weight": "up", ".lora_B.bias": "bias"}


def _read(path: Path, expert: nn.Module) -> dict[nn.Linear, _Change]:
    layers = dict(expert.named_modules())
    changes: dict[nn.Linear, _Change] = {}
    for key, tensor in _tensors(path).items():
        suffix = next((suffix for suffix in _FIELDS if key.endswith(suffix)), "")
        layer = layers.get(key.removeprefix(_PREFIX).removesuffix(suffix))
        if not suffix or not isinstance(layer, nn.Linear):
            raise _misfit(path, f"{key} is no linear layer of the expert")
        setattr(changes.setdefault(layer, _Change()), _FIELDS[suffix], tensor)
    names = {layer: name for name, layer in layers.items()}
    for layer, change in changes.items():
        if not change.fits(layer):
            raise _misfit(path, f"it has another shape than the expert's {names[layer]}")
    if not changes:
        raise _misfit(path, "it is empty")
    return changes


def _tensors(path: Path) -> dict[str, Tensor]:
    from diffusers import WanPipeline

    try:
        tensors: dict[str, Tensor]
        tensors, settings = WanPipeline.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            local_files_only=True,
            use_safetensors=True,
            return_lora_metadata=True,
        )
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        raise _misfit(path, f"its names are those of no known tool ({error})") from error
    if not settings:
        return tensors
    # diffusers' own files keep alpha and rank in the header, others beside each layer.
    scale = settings["transformer.lora_alpha"] / settings["transformer.r"]
    return {key: value * scale if ".lora_A." in key else value for key, value in tensors.items()}


def _add(parameter: Tensor, change: Tensor) -> None:
    parameter.copy_(parameter.to(change.device, torch.float32) + change)


def _misfit(path: Path, problem: str) -> ModelInvalid:
    return ModelInvalid(f"{path} does not fit this model: {problem}; choose the pair made for it")


def _remedy(distilled: Distilled) -> str:
    return f"restore it from {distilled.source}, or name another pair in the profile"
