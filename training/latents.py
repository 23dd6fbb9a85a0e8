"""Encodes the training clips once, so that the experts never wait for the codec.

One bank per clip length, each with its own draw of combinations and jitter.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.codec import CELL_FRAMES, CELL_PX
from training.world import Scene, coverage, render, training_scenes

log = logging.getLogger(__name__)

EDGE_WEIGHT: Final = 3.0
INSIDE_WEIGHT: Final = 1.0
"""The outline is a tenth of the cells and all of the shape: unweighted, shapes come last."""
CLIP_COUNTS: Final[dict[int, int]] = {13: 1368, 17: 684, 21: 1368, 25: 684, 33: 684, 41: 684}
"""Trained clip length to clips; 1,368 are all training combinations."""
FRAMES_PER_CALL: Final = 104


@dataclass(frozen=True)
class LatentBank:
    """The clips of one length.

    Normalised latents are float16 [n, z, t, h, w], the loss weights of the cells float16
    [n, 1, t, h, w] with mean 1 per clip.
    """

    scenes: Sequence[Scene]
    latents: Tensor
    weights: Tensor


def to_pixels(clips: Sequence[Any]) -> Tensor:
    """Clips [frames, h, w, 3] in 0..1 to float32 [n, 3, frames, h, w] in -1..1."""
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() * 2 - 1


def latent_statistics(codec: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel, each float32 [1, z, 1, 1, 1]."""
    mean, deviation = codec.config.latents_mean, codec.config.latents_std
    return torch.tensor(mean).view(1, -1, 1, 1, 1), torch.tensor(deviation).view(1, -1, 1, 1, 1)


@torch.no_grad()
def encode(codec: Any, clips: Sequence[Any]) -> Tensor:
    """The mean latents, normalised as WanPipeline expects them: float32 [n, z, t, h, w]."""
    mean, deviation = latent_statistics(codec)
    with torch.autocast("cpu", torch.bfloat16):
        latents = codec.encode(to_pixels(clips)).latent_dist.mean.float()
    normalised: Tensor = (latents - mean) / deviation
    return normalised


def cell_weights(scene: Scene, num_frames: int) -> Tensor:
    """Loss weight per latent cell, float32 [1, t, h, w] with mean 1, highest at the outline."""
    covered = torch.from_numpy(coverage(scene, num_frames))[None, None]
    # The codec's first cell holds one frame, every later cell two.
    covered = torch.cat([covered[:, :, :1]] * (CELL_FRAMES - 1) + [covered], 2)
    cell = (CELL_FRAMES, CELL_PX, CELL_PX)
    highest, lowest = functional.max_pool3d(covered, cell), -functional.max_pool3d(-covered, cell)
    is_edge = ((highest > 0.02) & (lowest < 0.98)).float()
    weight = 1 + EDGE_WEIGHT * is_edge + INSIDE_WEIGHT * (lowest >= 0.98).float()
    return (weight / weight.mean())[0]


def encode_bank(codec: Any, num_frames: int, count: int) -> LatentBank:
    """Draw and encode ``count`` clips, each of another training combination."""
    scenes = training_scenes(random.Random(f"latents/{num_frames}"))[:count]
    batch_size = max(1, FRAMES_PER_CALL // num_frames)
    latents = [
        encode(codec, [render(scene, num_frames) for scene in scenes[k : k + batch_size]]).half()
        for k in range(0, len(scenes), batch_size)
    ]
    weights = [cell_weights(scene, num_frames).half() for scene in scenes]
    return LatentBank(scenes, torch.cat(latents), torch.stack(weights))


def bank_path(folder: Path, num_frames: int) -> Path:
    """Where the bank of one clip length lies."""
    return folder / f"latents-{num_frames}.pt"


def ensure_banks(codec: Any, folder: Path, lengths: Sequence[int]) -> None:
    """Encode the banks that ``folder`` lacks."""
    for num_frames in lengths:
        path = bank_path(folder, num_frames)
        if path.exists():
            continue
        bank = encode_bank(codec, num_frames, CLIP_COUNTS[num_frames])
        state = {
            "scenes": [asdict(scene) for scene in bank.scenes],
            "latents": bank.latents,
            "weights": bank.weights,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)
        log.info("encoded %d clips of %d frames", len(bank.scenes), num_frames)


def load_bank(folder: Path, num_frames: int) -> LatentBank:
    """Read a bank that ``ensure_banks`` wrote."""
    state: dict[str, Any] = torch.load(bank_path(folder, num_frames), weights_only=True)
    scenes = [Scene(**fields) for fields in state["scenes"]]
    return LatentBank(scenes, state["latents"], state["weights"])
