"""A model profile: everything that differs between the tiny model and Wan2.2-T2V-A14B, as data.

Wan2.2's defaults differ between its own repository, diffusers and every server around it, so
nothing is inherited: size, frames, steps, both guidance scales and the flow shift are stated here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vidmill.domain.clip import Resolution, Size


@dataclass(frozen=True, kw_only=True)
class Part:
    """One component of a model folder: its files and the tensors that prove its shape.

    Attributes:
        folder: Subfolder of a diffusers folder, `transformer`.
        config: Entries of its `config.json` that must be equal.
    """

    folder: str
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """How to run one model.

    Attributes:
        name: Stable name, also the CLI's and the wire's.
        source: `package:tiny` (shipped with Vidmill), a folder, or a hub id.
        is_toy: A smoke-test model; every result says so.
        sizes: Native size per delivered resolution; each side a multiple of 16 (WanPipeline).
        frame_stride: Frames are `frame_stride * k + 1` (the causal VAE's temporal factor).
        guidance_scale: High-noise expert, t >= boundary. (Wan's own config lists low, high.)
        max_text_tokens: Padded text length the model was trained with; attention is unmasked.
        memory: `resident`, or `offload` (diffusers' model offload) on cards below 80 GB.
        cpu_threads: Threads that serve it best where the device is a CPU; 0 = all cores.
        warm_duration_s: Length of the clip each size is warmed with: the commonest one.
        seconds_per_step: First guess for the ETA, at the largest size, until measured.
    """

    name: str
    title: str
    source: str
    revision: str
    licence: str
    is_toy: bool
    languages: tuple[str, ...]
    sizes: Mapping[Resolution, Size]
    native_fps: int
    frame_stride: int
    steps: int
    guidance_scale: float
    guidance_scale_2: float
    flow_shift: float
    boundary_ratio: float
    max_text_tokens: int
    dtype: Literal["float32", "bfloat16", "float16"]
    vae_dtype: Literal["float32", "bfloat16"]
    memory: Literal["resident", "offload"]
    attention: tuple[str, ...]
    cpu_threads: int = 0
    warm_duration_s: float = 3.0
    seconds_per_step: float
    default_negative_prompt: str
    has_prompt_rules: bool
    parts: tuple[Part, ...]

    def num_frames(self, duration_s: float) -> int:
        """Return the fewest frames of the form `frame_stride * k + 1` that span *duration_s*."""
        intervals = duration_s * self.native_fps
        return self.frame_stride * math.ceil(round(intervals / self.frame_stride, 6)) + 1

    @classmethod
    def from_toml(cls, name: str, data: Mapping[str, Any]) -> Self:
        """Build from a parsed TOML table; an unknown or missing key raises TypeError at start."""
        values = dict(data)
        values["sizes"] = {Resolution(k): Size(*v) for k, v in values["sizes"].items()}
        values["parts"] = tuple(
            Part(folder=folder, config=config) for folder, config in values.pop("parts").items()
        )
        for key in ("languages", "attention"):
            values[key] = tuple(values[key])
        return cls(name=name, **values)
