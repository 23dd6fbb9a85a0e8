"""A model profile: everything that differs between the tiny model and Wan2.2-T2V-A14B, as data.

Wan2.2's defaults differ between its own repository, diffusers and every server around it, so
nothing is inherited: size, frames, steps, both guidance scales and the flow shift are stated here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

from vidmill.domain.clip import Aspect, Resolution, Size
from vidmill.domain.remote import Cancel, Progress, Remote

DEFAULT_REVISION = "main"
"""Of a hub id that is given without one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One component of a model folder: its files and the tensors that prove its shape.

    Attributes:
        folder: Subfolder of a diffusers folder, `transformer`.
        config: Entries of its `config.json` that must be equal.
    """

    folder: str
    config: Mapping[str, Any]


class Layout(StrEnum):
    """Where the parts of a model lie while a worker serves it; see `domain.layout`."""

    RESIDENT = "resident"
    PARKED = "parked"
    FP8 = "fp8"
    OFFLOAD = "offload"


@dataclass(frozen=True, kw_only=True)
class StepCache:
    """Steps whose blocks are skipped because their input has hardly changed.

    Attributes:
        kind: `first_block` or `mag`, names of diffusers' caches.
        threshold: Change below which a step is skipped; its meaning is the kind's own.
    """

    kind: str
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A pair of LoRA files that teach the experts to need few steps, fused while loading.

    Attributes:
        source: A folder or a hub id.
        revision: Of a hub id.
        high: File for the high-noise expert, below the source.
        low: File for the low-noise expert.
        strength: Factor of both.
    """

    source: str
    high: str
    low: str
    revision: str = DEFAULT_REVISION
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """How to run one model.

    Attributes:
        name: Stable name, also the CLI's and the wire's.
        engine: Who runs it, a name in `engines.ENGINES`.
        remote: The server that has it, where that is not this machine.
        source: `package:tiny` (shipped with Vidmill), a folder, or a hub id.
        is_toy: A smoke-test model; every result says so.
        sizes: Native 16:9 size per delivered resolution; each side a multiple of 16 (WanPipeline).
        shapes: Native sizes of further shapes; 9:16 and 3:4 are 16:9 and 4:3 turned.
        frame_stride: Frames are `frame_stride * k + 1` (the causal VAE's temporal factor).
        guidance_scale: High-noise expert, t >= boundary. (Wan's own config lists low, high.)
        max_text_tokens: Padded text length the model was trained with; attention is unmasked.
        layouts: Those that may be used, best first; the first one that fits is.
        gemm: Arithmetic of the experts' linear layers: that of `dtype`, or 8-bit floats.
        step_cache: None = every step is computed.
        compile: Back end of `torch.compile`, or empty for none.
        distilled: None = the experts as published.
        cpu_threads: Threads that serve it best where the device is a CPU; 0 = all cores.
        warm_duration_s: Length of the clip each size is warmed with: the commonest one.
        seconds_per_step: First guess for the ETA, at the largest size, until measured.
        params_m: Millions of parameters per part, for plans where no folder is at hand.
    """

    name: str
    title: str
    source: str
    revision: str
    licence: str
    is_toy: bool
    languages: tuple[str, ...]
    sizes: Mapping[Resolution, Size]
    shapes: Mapping[Aspect, Mapping[Resolution, Size]] = field(default_factory=dict)
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
    engine: str = "wan"
    layouts: tuple[Layout, ...] = (Layout.RESIDENT,)
    attention: tuple[str, ...]
    gemm: Literal["native", "fp8"] = "native"
    step_cache: StepCache | None = None
    compile: str = ""
    distilled: Distilled | None = None
    cpu_threads: int = 0
    warm_duration_s: float = 3.0
    seconds_per_step: float
    default_negative_prompt: str
    has_prompt_rules: bool
    params_m: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[Part, ...]
    remote: Remote | None = None

    def native_size(self, resolution: Resolution, aspect: Aspect) -> Size:
        """Return the size the engine renders at.

        Raises:
            KeyError: The model has no such resolution or shape.
        """
        if aspect is Aspect.WIDE:
            return self.sizes[resolution]
        upright = _TURNED.get(aspect)
        if upright is None:
            return self.shapes[aspect][resolution]
        size = self.native_size(resolution, upright)
        return Size(size.height_px, size.width_px)

    @property
    def takes_loras(self) -> bool:
        """Whether Vidmill draws with it in this process, and knows how large its experts are."""
        return self.engine == "wan" and bool(self.expert_configs)

    @property
    def expert_configs(self) -> Mapping[str, Mapping[str, Any]]:
        """What the profile says of both experts, `high` and `low`; empty where it is not enough."""
        configs = {part.folder: part.config for part in self.parts}
        found = {side: configs.get(folder, {}) for side, folder in _EXPERTS.items()}
        is_whole = all(config.keys() >= _EXPERT_SIZES for config in found.values())
        return found if is_whole else {}

    @property
    def native_sizes(self) -> frozenset[Size]:
        """Every size the engine renders at."""
        return frozenset(self.native_size(r, a) for r in self.sizes for a in self.aspects)

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """The shapes the model draws."""
        lying = {Aspect.WIDE, *self.shapes}
        return tuple(aspect for aspect in Aspect if _TURNED.get(aspect, aspect) in lying)

    @property
    def progress(self) -> Progress:
        """How finely it is told how far a clip is."""
        return self.remote.progress if self.remote else Progress.STEP

    @property
    def cancel(self) -> Cancel:
        """What becomes of a clip that is cancelled while it is drawn."""
        return self.remote.cancel if self.remote else Cancel.NOW

    def num_frames(self, duration_s: float) -> int:
        """Return the fewest frames of the form `frame_stride * k + 1` that span *duration_s*."""
        intervals = duration_s * self.native_fps
        return self.frame_stride * math.ceil(round(intervals / self.frame_stride, 6)) + 1

    @classmethod
    def from_toml(cls, name: str, data: Mapping[str, Any]) -> Self:
        """Build from a parsed TOML table; an unknown or missing key raises TypeError at start."""
        values = dict(data)
        values["sizes"] = _sizes(values["sizes"])
        values["shapes"] = {Aspect(k): _sizes(v) for k, v in values.get("shapes", {}).items()}
        values["parts"] = tuple(
            Part(folder=folder, config=config) for folder, config in values.pop("parts").items()
        )
        if "remote" in values:
            values["remote"] = Remote.from_toml(values["remote"])
        for key in ("languages", "attention"):
            values[key] = tuple(values[key])
        for key, kind in _TABLES.items():
            if key in values:
                values[key] = kind(**values[key])
        if "layouts" in values:
            values["layouts"] = tuple(map(Layout, values["layouts"]))
            if not values["layouts"]:
                raise ValueError(f"layouts is empty; name some of: {', '.join(Layout)}")
        return cls(name=name, **values)


_TABLES: Mapping[str, Callable[..., Any]] = {"step_cache": StepCache, "distilled": Distilled}

_EXPERTS = {"high": "transformer", "low": "transformer_2"}
_EXPERT_SIZES = frozenset({"num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim"})

_TURNED: Mapping[Aspect, Aspect] = {
    Aspect.TALL: Aspect.WIDE,
    Aspect.PORTRAIT: Aspect.LANDSCAPE,
}


def _sizes(table: Mapping[str, Any]) -> dict[Resolution, Size]:
    return {Resolution(name): Size(*sides) for name, sides in table.items()}
