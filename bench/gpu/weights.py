"""A pipeline of a profile's true shape with random weights, made where they are wanted.

28.6 GB of an expert are drawn on the device in a second; drawn on the host and copied they would
take minutes. Each tensor's numbers follow from the seed and its name alone, so two pipelines of one
seed on one kind of device are equal bit for bit.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.tiny_random import byte_tokenizer
from vidmill.domain.lora_files import expert_linears
from vidmill.domain.ports import LoraFiles
from vidmill.domain.profile import ModelProfile

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

PART_CLASSES: Mapping[str, tuple[str, str]] = {
    "transformer": ("diffusers", "WanTransformer3DModel"),
    "transformer_2": ("diffusers", "WanTransformer3DModel"),
    "text_encoder": ("transformers", "UMT5EncoderModel"),
    "vae": ("diffusers", "AutoencoderKLWan"),
}
"""Library and class of each part with weights, as model_index.json names them."""

_SMALL = 0.3
"""Gain of the text encoder's matrices: T5's attention is not scaled by its head's width."""


def random_pipeline(
    profile: ModelProfile, *, draw_on: torch.device, keep_on: torch.device, seed: int = 0
) -> Any:
    """Return a `WanPipeline` whose parts are shaped by `profile.parts`, in the profile's dtypes.

    Args:
        profile: Its parts' configs; what they leave out has diffusers' default, which is A14B's.
        draw_on: The device whose generator draws the numbers.
        keep_on: Where the parts end up, one tensor at a time.
        seed: Of the weights.
    """
    import diffusers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    parts = {
        name: random_part(profile, name, draw_on=draw_on, keep_on=keep_on, seed=seed)
        for name in PART_CLASSES
    }
    pipe = diffusers.WanPipeline(
        **parts,
        tokenizer=byte_tokenizer(max_tokens=profile.max_text_tokens),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=profile.flow_shift
        ),
        boundary_ratio=profile.boundary_ratio,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def random_part(
    profile: ModelProfile,
    name: str,
    *,
    draw_on: torch.device,
    keep_on: torch.device,
    seed: int = 0,
) -> nn.Module:
    """Return one part of `random_pipeline`."""
    config = next(part.config for part in profile.parts if part.folder == name)
    part = _shell(name, config)
    dtype = _DTYPES[profile.vae_dtype if name == "vae" else profile.dtype]
    _Brush(name, dtype=dtype, draw_on=draw_on, keep_on=keep_on, seed=seed).fill(part)
    return part


def _shell(name: str, config: Mapping[str, Any]) -> nn.Module:
    """Return the part without weights; its buffers, which are computed, are real."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel  # noqa: PLC0415
    from transformers import UMT5Config, UMT5EncoderModel  # noqa: PLC0415

    arguments = {key: value for key, value in config.items() if key not in _NAMES_OF_THE_CLASS}
    with init_empty_weights(include_buffers=False):
        if name == "text_encoder":
            part = UMT5EncoderModel(UMT5Config(is_encoder_decoder=False, **arguments))
        elif name == "vae":
            part = AutoencoderKLWan(**arguments)
        else:
            part = WanTransformer3DModel(**arguments)
    module: nn.Module = part.eval().requires_grad_(False)
    return module


_NAMES_OF_THE_CLASS = ("_class_name", "model_type")


def write_pair(
    profile: ModelProfile, folder: Path, *, draw_on: torch.device, rank: int = 64, seed: int = 0
) -> LoraFiles:
    """Write a LoRA pair for every linear layer of the experts' blocks into *folder*."""
    config = next(part.config for part in profile.parts if part.folder == "transformer")
    generator = torch.Generator(draw_on).manual_seed(seed)
    files = LoraFiles(high=folder / "high.safetensors", low=folder / "low.safetensors")
    folder.mkdir(exist_ok=True)
    for file in (files.high, files.low):
        tensors = {}
        for name, (outputs, inputs) in expert_linears(config).items():
            for letter, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                drawn = torch.randn(shape, generator=generator, device=draw_on)
                values = drawn.mul_(_PAIR_SCALE).to(torch.bfloat16).cpu()
                tensors[f"transformer.{name}.lora_{letter}.weight"] = values
        save_file(tensors, file)
    return files


_PAIR_SCALE = 0.01
"""Of both factors: with rank 64 the change is a twentieth of a weight of width 5120."""


class _Brush:
    """Gives the parameters of one part their numbers."""

    def __init__(
        self,
        part_name: str,
        *,
        dtype: torch.dtype,
        draw_on: torch.device,
        keep_on: torch.device,
        seed: int,
    ) -> None:
        self._part_name = part_name
        self._dtype = dtype
        self._draw_on = draw_on
        self._keep_on = keep_on
        self._seed = seed

    def fill(self, part: Any) -> None:
        # What diffusers' own reader keeps in float32 when the rest is bfloat16.
        kept = set(getattr(part, "_keep_in_fp32_modules", None) or ())
        if self._part_name == "text_encoder":
            kept = set()  # transformers keeps them for float16 only
        for module_name, module in part.named_modules():
            for name, shell in list(module.named_parameters(recurse=False)):
                path = f"{module_name}.{name}"
                is_kept = not kept.isdisjoint(path.split("."))
                values = self._draw(path, shell, torch.float32 if is_kept else self._dtype)
                setattr(module, name, nn.Parameter(values, requires_grad=False))
        part.to(self._keep_on)  # its buffers
        if hasattr(part, "tie_weights"):
            part.tie_weights()

    def _draw(self, path: str, shell: Tensor, dtype: torch.dtype) -> Tensor:
        leaf = path.rpartition(".")[2]
        if leaf == "gamma" or (shell.ndim == 1 and leaf == "weight"):
            return torch.ones(shell.shape, dtype=dtype, device=self._keep_on)
        if leaf == "bias":
            return torch.zeros(shell.shape, dtype=dtype, device=self._keep_on)
        generator = torch.Generator(self._draw_on)
        generator.manual_seed(zlib.crc32(f"{self._seed} {self._part_name} {path}".encode()))
        values = torch.randn(shell.shape, generator=generator, dtype=dtype, device=self._draw_on)
        return values.mul_(self._scale(path, shell)).to(self._keep_on)

    def _scale(self, path: str, shell: Tensor) -> float:
        """Return a standard deviation that keeps what flows through at about one."""
        if "embed_tokens" in path or path.endswith("shared.weight"):
            return 1.0
        if path.endswith("scale_shift_table"):
            return float(shell.shape[-1] ** -0.5)
        gain = _SMALL if self._part_name == "text_encoder" else 1.0
        if path == "decoder.conv_out.weight":
            gain = 0.5  # pixels around the middle, not clipped
        return gain * float(shell[0].numel() ** -0.5)
