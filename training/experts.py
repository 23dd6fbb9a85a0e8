"""The experts: flow matching on cached latents, first one network, then two specialists.

The shared network learns all noise levels. Then the real fork: the high-noise and the low-noise
expert each continue alone on their side of the boundary, as two independent processes.
"""

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from training.captions import write_caption
from training.codec import Z_CHANNELS
from training.latents import LatentBank, load_bank
from training.loop import Learner, Schedule, linear, train
from training.text_tower import CODE_WIDTH, TextTower

Role = Literal["shared", "high", "low"]

BOUNDARY: Final = 0.875
FLOW_SHIFT: Final = 3.0
NOISE_RANGES: Final[dict[Role, tuple[float, float]]] = {
    "shared": (0.0, 1.0),
    "high": (BOUNDARY, 1.0),
    "low": (0.0, BOUNDARY),
}
"""Sigma from and to; WanPipeline hands sigmas of at least the boundary to the high expert."""

NUM_HEADS: Final = 5
HEAD_WIDTH: Final = 32
NUM_LAYERS: Final = 6
FEED_FORWARD_WIDTH: Final = 448
PATCH: Final = (1, 4, 4)

UNCONDITIONAL_SHARE: Final = 0.1
UNSAID_SHARE: Final = 0.03
CELLS_PER_BATCH: Final = 2520 * 16
"""24 clips of 3 s: every length costs the same time per step."""
LENGTH_WEIGHTS: Final[dict[int, float]] = {
    13: 0.35,
    17: 0.12,
    21: 0.2,
    25: 0.08,
    33: 0.1,
    41: 0.15,
}
"""Clip length in frames to its share of the steps: mostly short ones, which are learnt first."""


def new_expert(*, num_layers: int = NUM_LAYERS) -> WanTransformer3DModel:
    """A fresh expert whose first prediction is zero everywhere."""
    expert = WanTransformer3DModel(
        patch_size=PATCH,
        num_attention_heads=NUM_HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=Z_CHANNELS,
        out_channels=Z_CHANNELS,
        text_dim=CODE_WIDTH,
        freq_dim=128,
        ffn_dim=FEED_FORWARD_WIDTH,
        num_layers=num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=128,
    )
    nn.init.zeros_(expert.proj_out.weight)
    nn.init.zeros_(expert.proj_out.bias)
    return expert


def shift_noise(share: Tensor, shift: float = FLOW_SHIFT) -> Tensor:
    """Uniform 0..1 to sigma as the sampler's flow shift spaces it."""
    return shift * share / (1 + (shift - 1) * share)


def draw_sigmas(
    count: int, noise: torch.Generator, *, low: float, high: float, shift: float = FLOW_SHIFT
) -> Tensor:
    """Stratified sigmas in low..high, float32 [count], dense where the sampler steps."""
    start, end = (sigma / (shift - (shift - 1) * sigma) for sigma in (low, high))
    strata = (torch.arange(count) + torch.rand(count, generator=noise)) / count
    return shift_noise(start + (end - start) * strata, shift)


@dataclass(frozen=True)
class Batch:
    """Clean latents [n, z, t, h, w], cell weights [n, 1, t, h, w], text [n, tokens, width]."""

    latents: Tensor
    weights: Tensor
    text: Tensor


def draw_batch(
    banks: dict[int, LatentBank], tower: TextTower, num_frames: int, rng: random.Random
) -> Batch:
    """Random clips of one length with fresh captions; some captions are empty for guidance."""
    bank = banks[num_frames]
    batch_size = max(1, CELLS_PER_BATCH // bank.latents[0, 0].numel())
    picks = [rng.randrange(len(bank.scenes)) for _ in range(batch_size)]
    captions = [
        ""
        if rng.random() < UNCONDITIONAL_SHARE
        else write_caption(bank.scenes[k], rng, unsaid=UNSAID_SHARE)[0]
        for k in picks
    ]
    return Batch(bank.latents[picks].float(), bank.weights[picks].float(), tower(captions))


def flow_loss(
    expert: nn.Module, batch: Batch, noise: torch.Generator, *, role: Role = "shared"
) -> Tensor:
    """Weighted squared error of the predicted velocity ``noise - latents``."""
    low, high = NOISE_RANGES[role]
    sigma = draw_sigmas(len(batch.latents), noise, low=low, high=high)
    level = sigma.view(-1, 1, 1, 1, 1)
    white = torch.randn(batch.latents.shape, generator=noise)
    noisy = (1 - level) * batch.latents + level * white
    with torch.autocast("cpu", torch.bfloat16):
        velocity = expert(
            hidden_states=noisy,
            timestep=sigma * 1000,
            encoder_hidden_states=batch.text,
            return_dict=False,
        )[0]
    error = (velocity.float() - (white - batch.latents)) ** 2
    loss: Tensor = (error * batch.weights).mean()
    return loss


def optimizers_for(expert: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    matrices = [
        p
        for name, p in expert.named_parameters()
        if p.ndim == 2 and "blocks." in name and "scale_shift" not in name
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in expert.parameters() if id(p) not in chosen]
    return [
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
    ]


SCHEDULES: Final[dict[Role, Schedule]] = {
    "shared": linear(2e-3, warmup_steps=150, hold=0.5, end=0.3),
    "high": linear(8e-4, warmup_steps=30, hold=0.2, end=0.01),
    "low": linear(8e-4, warmup_steps=30, hold=0.2, end=0.01),
}


def new_expert_learner(expert: nn.Module, role: Role, seed: int = 0) -> Learner:
    """Optimisers, schedule and averaging of one role; ``expert`` is trained in place."""
    schedule = SCHEDULES[role]
    return Learner(
        network=expert,
        average=copy.deepcopy(expert).requires_grad_(requires_grad=False),
        optimizers=optimizers_for(expert, schedule(0.0, 1000)),
        schedule=schedule,
        seed=f"{role}/{seed}",
        max_average_decay=0.998 if role == "shared" else 0.995,
    )


def length_at(num_steps: int) -> int:
    """The clip length of a step: the same for all workers, so that none waits for another."""
    lengths, weights = zip(*LENGTH_WEIGHTS.items(), strict=True)
    return int(random.Random(num_steps).choices(lengths, weights)[0])


def compile_blocks(expert: Any) -> None:
    """Compile one transformer block for all: six times faster to start than the whole network.

    Without flash attention, because its backward pass on a CPU takes 40 % of a step of these
    sizes; the plain formula compiles into half of the time.
    """
    torch.backends.cuda.enable_flash_sdp(False)  # the switch rules the CPU kernel too
    torch.compiler.config.recompile_limit = 64
    expert.compile_repeated_blocks(dynamic=False)


def train_expert(
    learner: Learner,
    role: Role,
    folder: Path,
    tower: TextTower,
    *,
    num_steps: int,
) -> None:
    """Train one role on the latent banks of ``folder``; resumes from its checkpoint there."""
    banks = {length: load_bank(folder, length) for length in LENGTH_WEIGHTS}
    compile_blocks(learner.network)

    def step_loss(_progress: float) -> Tensor:
        batch = draw_batch(banks, tower, length_at(learner.num_steps), learner.rng)
        return flow_loss(learner.network, batch, learner.noise, role=role)

    train(learner, step_loss, folder / f"{role}.pt", num_steps=num_steps)


def load_average(expert: nn.Module, checkpoint: Path) -> None:
    """Put the averaged weights of a checkpoint into ``expert``."""
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    expert.load_state_dict(state["average"])
