"""The decoder stage: sharpens the decoder alone, on latents as imperfect as generated ones.

The encoder stays frozen, so the experts' latents stay valid.
"""

import copy
import random
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from training.codec import POOL_SIZES, WindowPool, decode_unclamped, pixel_loss
from training.latents import latent_statistics
from training.loop import Learner, cosine, train

PEAK_LEARNING_RATE: Final = 6e-4
LATENT_NOISE: Final = 0.08
"""Deviation of the added noise, in deviations of each latent channel."""
WINDOWS: Final = ((9, 8), (21, 4), (9, 8), (41, 2))
"""Frames and batch size, taking turns."""
USUAL_CONTRAST: Final = 1.5
MAX_GAIN: Final = 4.0
"""Every clip counts by its own contrast: purple stars on green were drawn as discs before."""


def new_decoder_learner(codec: Any, seed: int = 0) -> Learner:
    """Only what runs after the latent is trained; ``codec`` is trained in place."""
    codec.requires_grad_(requires_grad=False)
    parameters = [*codec.decoder.parameters(), *codec.post_quant_conv.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(requires_grad=True)
    return Learner(
        network=codec,
        average=copy.deepcopy(codec).requires_grad_(requires_grad=False),
        optimizers=[
            torch.optim.AdamW(
                parameters, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-4
            )
        ],
        schedule=cosine(PEAK_LEARNING_RATE, warmup_steps=20),
        seed=f"decoder/{seed}",
        max_grad_norm=0.5,
    )


def decoder_loss(codec: Any, pixels: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """Reconstruction from the mean latent plus a little noise."""
    _, deviation = latent_statistics(codec)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            latents = codec.encode(pixels).latent_dist.mean.float()
        latents = latents + LATENT_NOISE * deviation * torch.randn(latents.shape, generator=noise)
        decoded = decode_unclamped(codec, latents).float()
    gain = contrast_gain(pixels)
    return pixel_loss(decoded * gain, pixels * gain, mask)


def contrast_gain(pixels: Tensor) -> Tensor:
    """What lifts each clip [3, frames, h, w] to the usual contrast: float32 [n, 1, 1, 1, 1]."""
    span = pixels.amax((2, 3, 4)) - pixels.amin((2, 3, 4))
    gain: Tensor = USUAL_CONTRAST / span.norm(dim=1).clamp(min=USUAL_CONTRAST / MAX_GAIN)
    return gain.view(-1, 1, 1, 1, 1)


def train_decoder(learner: Learner, checkpoint: Path, *, num_steps: int) -> None:
    """Make all steps; resumes from ``checkpoint``."""
    pool = WindowPool(POOL_SIZES, random.Random(5))

    def step_loss(_progress: float) -> Tensor:
        num_frames, batch_size = WINDOWS[learner.num_steps % len(WINDOWS)]
        pixels, mask = pool.batch(batch_size, num_frames, learner.rng)
        return decoder_loss(learner.network, pixels, mask, learner.noise)

    train(learner, step_loss, checkpoint, num_steps=num_steps)
