"""The arithmetic floor: how long a device computes if it does nothing but A14B's matrix products.

Counted are the linear layers and attention of the experts, 2 FLOP a multiply-add. Norms, rotary
embedding, text encoder and VAE are left out: a floor may be too low, never too high.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vidmill.domain.clip import Size

_VAE_STRIDE_PX = 8
_VAE_STRIDE_FRAMES = 4
_TRAINING_LEVELS = 1000


@dataclass(frozen=True, kw_only=True)
class ExpertShape:
    """The numbers of a `WanTransformer3DModel` that arithmetic depends on."""

    num_layers: int
    width: int
    ffn_width: int
    patch: tuple[int, int, int]
    text_tokens: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, text_tokens: int) -> Self:
        frames, height, width = config["patch_size"]
        return cls(
            num_layers=config["num_layers"],
            width=config["num_attention_heads"] * config["attention_head_dim"],
            ffn_width=config["ffn_dim"],
            patch=(frames, height, width),
            text_tokens=text_tokens,
        )

    def num_tokens(self, size: Size, num_frames: int) -> int:
        """Return how many tokens a clip of *num_frames* (4k+1) at *size* is to the experts."""
        frames = ((num_frames - 1) // _VAE_STRIDE_FRAMES + 1) // self.patch[0]
        rows = size.height_px // _VAE_STRIDE_PX // self.patch[1]
        columns = size.width_px // _VAE_STRIDE_PX // self.patch[2]
        return frames * rows * columns


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one forward. Apart, because FP8 speeds up the linear layers only."""

    linear: float
    attention: float

    @property
    def total(self) -> float:
        return self.linear + self.attention


@dataclass(frozen=True, kw_only=True)
class Rates:
    """FLOP/s that the device reaches."""

    linear: float
    attention: float


def forward_flops(expert: ExpertShape, size: Size, num_frames: int) -> Flops:
    """Return the arithmetic of one call of an expert for one clip."""
    tokens = expert.num_tokens(size, num_frames)
    d, text = expert.width, expert.text_tokens
    # Self-attention's q, k, v, o and cross-attention's q, o; then the two of the FFN.
    per_token = 2 * (6 * d * d + 2 * d * expert.ffn_width)
    text_keys = 2 * 2 * d * d * text  # cross-attention's k, v
    attention = 4 * tokens * (tokens + text) * d
    return Flops(
        linear=expert.num_layers * (per_token * tokens + text_keys),
        attention=expert.num_layers * attention,
    )


def floor_s(flops: Flops, rates: Rates) -> float:
    """Return the least seconds one forward can take at *rates*."""
    return flops.linear / rates.linear + flops.attention / rates.attention


def steps_by_expert(steps: int, flow_shift: float, boundary_ratio: float) -> tuple[int, int]:
    """Return how many of *steps* the high-noise and the low-noise expert take.

    The noise levels are those of diffusers' UniPC with `use_flow_sigmas` ("trailing").
    """
    high = 0
    for step in range(steps):
        # The training levels end at 1/1000, not at 0; times are whole numbers, cut off.
        level = 1 - (1 - 1 / _TRAINING_LEVELS) * step / steps
        sigma = flow_shift * level / (1 + (flow_shift - 1) * level)
        high += int(sigma * _TRAINING_LEVELS) >= boundary_ratio * _TRAINING_LEVELS
    return high, steps - high


def passes(guidance_scale: float) -> int:
    """Return how many forwards a step takes; the high-noise expert's guidance alone decides."""
    return 2 if guidance_scale > 1 else 1
