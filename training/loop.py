"""The loop every stage shares: steps, learning rate, averaged weights, checkpoints.

What a step does depends on the checkpoint's weights, averages and optimisers and on its own number,
never on the clock: a stage that was killed goes on bit-equally, and repeats at most the steps since
its last checkpoint.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training import workers

log = logging.getLogger(__name__)

Clock = Callable[[], float]
StepLoss = Callable[[float], Tensor]
"""Share of the stage's steps already made, 0 to below 1, to a scalar loss with a graph."""
Schedule = Callable[[float, int], float]
"""That share and the steps made to a learning rate."""

SAVE_EVERY_S: Final = 120.0
LOG_EVERY_STEPS: Final = 50


def cosine(peak: float, *, warmup_steps: int, floor: float = 0.01) -> Schedule:
    """Linear warm-up, then half a cosine from ``peak`` to ``floor * peak`` at the end."""

    def learning_rate(progress: float, num_steps: int) -> float:
        warm = min(1.0, (num_steps + 1) / warmup_steps)
        fall = 0.5 + 0.5 * math.cos(math.pi * progress)
        return peak * warm * (floor + (1 - floor) * fall)

    return learning_rate


def linear(peak: float, *, warmup_steps: int, hold: float, end: float) -> Schedule:
    """Warm-up, ``peak`` for the share ``hold`` of the steps, then straight to ``end * peak``."""

    def learning_rate(progress: float, num_steps: int) -> float:
        warm = min(1.0, (num_steps + 1) / warmup_steps)
        fall = max(0.0, (progress - hold) / (1 - hold))
        return peak * warm * (1 - (1 - end) * fall)

    return learning_rate


@dataclass
class Learner:
    """A network in training with everything a checkpoint must hold.

    ``rng`` and ``noise`` are what a step draws its samples from.
    """

    network: nn.Module
    average: nn.Module
    optimizers: Sequence[Optimizer]
    schedule: Schedule
    seed: str
    max_average_decay: float = 0.99
    max_grad_norm: float = 1.0
    num_steps: int = 0
    rng: random.Random = field(default_factory=random.Random)
    noise: torch.Generator = field(default_factory=torch.Generator)

    def reseed(self) -> None:
        """Let the samples of the next step follow from its number and the worker's alone."""
        self.rng.seed(f"{self.seed}/{workers.rank()}/{self.num_steps}")
        self.noise.manual_seed(self.rng.getrandbits(63))

    def descend(self, loss: Tensor, progress: float) -> None:
        """One optimiser step on ``loss``, then move the average towards the new weights."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self.schedule(progress, self.num_steps)
        loss.backward()  # type: ignore[no-untyped-call]
        workers.average_gradients(trainable(self.network))
        nn.utils.clip_grad_norm_(trainable(self.network), self.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.num_steps += 1
        decay = min(self.max_average_decay, self.num_steps / (self.num_steps + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for average, weight in pairs:
                average.lerp_(weight, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically: a killed run never leaves half a file."""
        if workers.rank() > 0:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "num_steps": self.num_steps,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint that ``save`` wrote."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.num_steps = state["num_steps"]


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that the optimisers may move."""
    return [p for p in network.parameters() if p.requires_grad]


def train(
    learner: Learner,
    step_loss: StepLoss,
    checkpoint: Path,
    *,
    num_steps: int,
    clock: Clock = time.monotonic,
    save_every_s: float = SAVE_EVERY_S,
) -> None:
    """Step until the stage has made ``num_steps`` in all, however often it was broken off."""
    if checkpoint.exists():
        learner.load(checkpoint)
    saved_at, smooth = clock(), None
    while learner.num_steps < num_steps:
        learner.reseed()
        progress = learner.num_steps / num_steps
        loss = step_loss(progress)
        learner.descend(loss, progress)
        value = float(loss.detach())
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        if learner.num_steps % LOG_EVERY_STEPS == 0 and workers.rank() == 0:
            log.info(
                "%s step %d of %d, loss %.4f",
                checkpoint.stem,
                learner.num_steps,
                num_steps,
                smooth,
            )
        if clock() - saved_at > save_every_s:
            learner.save(checkpoint)
            saved_at = clock()
    learner.save(checkpoint)
