"""The codec stage: a causal video autoencoder with cells of 4x4 pixels x 2 frames, 6 channels.

Short windows come first because they are cheap; the last part of the budget uses whole 10 s clips,
because the decoder's causal cache drifts at lengths it was never trained on.
"""

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.loop import Learner, cosine, train
from training.vocabulary import COLOUR_NAMES
from training.world import PALETTE, Floats, coverage, sample_scene

Z_CHANNELS: Final = 6
CELL_PX: Final = 4
CELL_FRAMES: Final = 2
PEAK_LEARNING_RATE: Final = 1e-3
"""3e-3 sticks at 22 dB; the same weights at 1e-3 gained 2 dB within seconds."""
KL_WEIGHT: Final = 3e-4
OBJECT_WEIGHT: Final = 3.0
EDGE_WEIGHT: Final = 0.5
RANDOM_COLOUR_SHARE: Final = 0.15


@dataclass(frozen=True)
class WindowPhase:
    """Until ``until`` (share of the budget) train on windows of ``num_frames``."""

    until: float
    num_frames: int
    batch_size: int


PHASES: Final = (WindowPhase(0.6, 9, 8), WindowPhase(0.85, 21, 4), WindowPhase(1.0, 41, 2))
POOL_SIZES: Final[dict[int, int]] = {13: 900, 21: 500, 41: 300}
"""Clip length in frames to clips drawn once; a window is cut from a clip at least as long."""


def new_codec(encoder_width: int = 48, decoder_width: int = 32) -> AutoencoderKLWan:
    """A fresh codec that starts near a plain block-mean codec.

    The residual variant has parameter-free shortcuts; scaling its learnt branches down at the
    start saves about 1.5 dB over the first minutes.
    """
    codec = AutoencoderKLWan(
        base_dim=encoder_width,
        decoder_base_dim=decoder_width,
        z_dim=Z_CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=0,
        temperal_downsample=[True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=True,
        scale_factor_temporal=CELL_FRAMES,
        scale_factor_spatial=CELL_PX,
        latents_mean=[0.0] * Z_CHANNELS,
        latents_std=[1.0] * Z_CHANNELS,
    )
    for name, module in codec.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 3:
            branch = 0.3 if name.endswith(("conv2", "proj")) else 1.0
            weight.data.mul_(0.6 if "sampler" in name else branch)
    return codec


class WindowPool:
    """Object masks drawn once per length; colours are put on at batch time."""

    def __init__(self, sizes: dict[int, int], rng: random.Random) -> None:
        self._masks: dict[int, NDArray[np.uint8]] = {
            num_frames: np.stack(
                [
                    np.asarray(coverage(sample_scene(rng), num_frames) * 255 + 0.5, np.uint8)
                    for _ in range(size)
                ]
            )
            for num_frames, size in sizes.items()
        }

    def batch(self, batch_size: int, num_frames: int, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Pixels float32 [n, 3, frames, h, w] in -1..1 and masks [n, 1, frames, h, w] in 0..1."""
        masks = self._masks[min(length for length in self._masks if length >= num_frames)]
        windows, tints = [], []
        for _ in range(batch_size):
            clip = masks[rng.randrange(len(masks))]
            start = rng.randrange(0, len(clip) - num_frames + 1)
            windows.append(clip[start : start + num_frames])
            tints.append(_tints(rng))
        mask = torch.from_numpy(np.stack(windows)).float()[:, None] / 255
        tint = torch.from_numpy(np.stack(tints)).float()[..., None, None, None] * 2 - 1
        return tint[:, 1] + (tint[:, 0] - tint[:, 1]) * mask, mask


def _tints(rng: random.Random) -> Floats:
    """Foreground and background, float32 [2, 3]: two palette colours, now and then any two."""
    if rng.random() < RANDOM_COLOUR_SHARE:
        return np.array([[rng.random() for _ in range(3)] for _ in range(2)], np.float32)
    return PALETTE[rng.sample(range(len(COLOUR_NAMES)), 2)]


def decode_unclamped(codec: Any, latents: Tensor) -> Tensor:
    """``codec.decode`` without its final clamp, which has no gradient for overshooting pixels."""
    codec.clear_cache()
    cache = codec._feat_map  # noqa: SLF001  decode() offers no way to leave the clamp out
    hidden, chunks = codec.post_quant_conv(latents), []
    for k in range(hidden.shape[2]):
        frame = hidden[:, :, k : k + 1]
        chunks.append(codec.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=k == 0))
    codec.clear_cache()
    pixels: Tensor = unpatchify(torch.cat(chunks, 2), patch_size=codec.config.patch_size)
    return pixels


def pixel_loss(decoded: Tensor, pixels: Tensor, mask: Tensor) -> Tensor:
    """L1 with the object counted more, plus the error of all pixel differences, plus MSE."""
    weight = 1 + OBJECT_WEIGHT * functional.max_pool3d(mask, (1, 5, 5), 1, (0, 2, 2))
    l1 = (weight * (decoded - pixels).abs()).mean() / weight.mean()
    edges = [(decoded.diff(dim=d) - pixels.diff(dim=d)).abs().mean() for d in (2, 3, 4)]
    mse: Tensor = functional.mse_loss(decoded, pixels)
    loss: Tensor = l1 + EDGE_WEIGHT * torch.stack(edges).sum() + mse
    return loss


def codec_loss(codec: Any, pixels: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """Reconstruction through a sampled latent, plus a small KL term."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = codec.encode(pixels).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        spread = (0.5 * log_variance).exp()
        sampled = mean + torch.randn(mean.shape, generator=noise) * spread
        decoded = decode_unclamped(codec, sampled).float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    loss: Tensor = pixel_loss(decoded, pixels, mask) + KL_WEIGHT * kl
    return loss


def new_codec_learner(codec: nn.Module, seed: int = 0) -> Learner:
    """AdamW at a rate of at most 1e-3 on a cosine, with averaged weights."""
    return Learner(
        network=codec,
        average=copy.deepcopy(codec).requires_grad_(requires_grad=False),
        optimizers=[
            torch.optim.AdamW(
                codec.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-4
            )
        ],
        schedule=cosine(PEAK_LEARNING_RATE, warmup_steps=30),
        seed=f"codec/{seed}",
        max_grad_norm=0.5,
    )


def train_codec(learner: Learner, checkpoint: Path, *, num_steps: int) -> None:
    """Make all steps; resumes from ``checkpoint``."""
    pool = WindowPool(POOL_SIZES, random.Random(3))

    def step_loss(progress: float) -> Tensor:
        phase = next(p for p in PHASES if progress < p.until)
        pixels, mask = pool.batch(phase.batch_size, phase.num_frames, learner.rng)
        return codec_loss(learner.network, pixels, mask, learner.noise)

    train(learner, step_loss, checkpoint, num_steps=num_steps)


@torch.no_grad()
def finished_codec(checkpoint: Path) -> AutoencoderKLWan:
    """The averaged weights of a checkpoint, with the latent statistics in the configuration."""
    codec: Any = new_codec()
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    codec.load_state_dict(state["average"])
    codec.eval()
    rng = random.Random(4)
    pool = WindowPool({21: 64}, rng)
    windows = [pool.batch(8, 21, rng)[0] for _ in range(8)]
    latents = torch.cat([codec.encode(pixels).latent_dist.mean for pixels in windows])
    mean, deviation = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    codec.register_to_config(
        latents_mean=[round(float(value), 4) for value in mean],
        latents_std=[round(float(value), 4) for value in deviation],
    )
    return codec


@torch.no_grad()
def psnr_db(codec: Any, pixels: Tensor) -> float:
    """Mean reconstruction quality of clips [n, 3, frames, h, w] in -1..1."""
    decoded = codec.decode(codec.encode(pixels).latent_dist.mean).sample
    error = ((decoded - pixels) ** 2).mean((1, 2, 3, 4)) / 4
    return float((-10 * torch.log10(error)).mean())
