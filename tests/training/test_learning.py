"""Each stage learns on one step, and a resumed run equals an uninterrupted one bit for bit."""

import contextlib
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.codec import WindowPool, codec_loss, new_codec, new_codec_learner
from training.decoder import decoder_loss, new_decoder_learner
from training.experts import (
    Batch,
    Role,
    draw_sigmas,
    flow_loss,
    new_expert,
    new_expert_learner,
)
from training.latents import cell_weights
from training.loop import Learner, train
from training.text_tower import (
    CODE_WIDTH,
    draw_samples,
    new_text_encoder,
    new_text_learner,
    new_tokenizer,
    text_loss,
)
from training.world import sample_scene

StepLoss = Callable[[float], Tensor]
Stage = Callable[[], tuple[Learner, StepLoss]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return new_tokenizer(num_scenes=100)


def a_text_stage(tokenizer: Any) -> tuple[Learner, StepLoss]:
    torch.manual_seed(0)
    learner = new_text_learner(new_text_encoder(len(tokenizer)))
    return learner, lambda _: text_loss(
        learner.network, tokenizer, draw_samples(learner.rng, batch_size=4)
    )


def a_codec_stage() -> tuple[Learner, StepLoss]:
    torch.manual_seed(0)
    learner = new_codec_learner(new_codec(encoder_width=8, decoder_width=8))
    pool = WindowPool({13: 2}, random.Random(0))

    def step_loss(_progress: float) -> Tensor:
        pixels, mask = pool.batch(1, 5, learner.rng)
        return codec_loss(learner.network, pixels, mask, learner.noise)

    return learner, step_loss


def a_decoder_stage() -> tuple[Learner, StepLoss]:
    torch.manual_seed(0)
    learner = new_decoder_learner(new_codec(encoder_width=8, decoder_width=8))
    pool = WindowPool({13: 2}, random.Random(0))

    def step_loss(_progress: float) -> Tensor:
        pixels, mask = pool.batch(1, 5, learner.rng)
        return decoder_loss(learner.network, pixels, mask, learner.noise)

    return learner, step_loss


def an_expert_stage(role: Role) -> tuple[Learner, StepLoss]:
    torch.manual_seed(0)
    learner = new_expert_learner(new_expert(num_layers=1), role)
    scene = sample_scene(random.Random(0))
    batch = Batch(
        latents=torch.randn(2, 6, 7, 12, 20),
        weights=cell_weights(scene, 13)[None].expand(2, -1, -1, -1, -1),
        text=torch.randn(2, 8, CODE_WIDTH),
    )
    return learner, lambda _: flow_loss(learner.network, batch, learner.noise, role=role)


STAGES = ["text", "codec", "decoder", "shared", "high", "low"]


def new_stage(name: str, tokenizer: Any) -> tuple[Learner, StepLoss]:
    stages: dict[str, Stage] = {
        "text": lambda: a_text_stage(tokenizer),
        "codec": a_codec_stage,
        "decoder": a_decoder_stage,
        "shared": lambda: an_expert_stage("shared"),
        "high": lambda: an_expert_stage("high"),
        "low": lambda: an_expert_stage("low"),
    }
    return stages[name]()


def run_steps(
    stage: tuple[Learner, StepLoss], checkpoint: Path, *, dies_before: int | None = None
) -> Learner:
    """Make a stage of eight steps that saves each third, and stops dead before a step."""
    learner, step_loss = stage
    looks = count()

    def limited(progress: float) -> Tensor:
        if learner.num_steps == dies_before:
            raise KeyboardInterrupt
        return step_loss(progress)

    with contextlib.suppress(KeyboardInterrupt):
        train(
            learner,
            limited,
            checkpoint,
            num_steps=8,
            clock=lambda: float(next(looks)),
            save_every_s=2,
        )
    return learner


@pytest.mark.parametrize("name", STAGES)
def test_a_few_steps_lower_the_loss(name: str, tokenizer: Any) -> None:
    learner, step_loss = new_stage(name, tokenizer)

    def loss_now() -> float:
        learner.rng.seed(1)
        learner.noise.manual_seed(1)
        with torch.no_grad():
            return float(step_loss(0.0))

    before = loss_now()
    for _ in range(6):
        learner.rng.seed(1)
        learner.noise.manual_seed(1)
        learner.descend(step_loss(0.0), 0.0)
    assert loss_now() < before


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in {"codec", "high", "low"} else [])
        for name in STAGES
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    whole = run_steps(new_stage(name, tokenizer), tmp_path / "whole.pt")
    killed = run_steps(new_stage(name, tokenizer), tmp_path / "parts.pt", dies_before=5)
    resumed = run_steps(new_stage(name, tokenizer), tmp_path / "parts.pt")
    assert (killed.num_steps, whole.num_steps, resumed.num_steps) == (5, 8, 8)
    for kind in ("network", "average"):
        expected, actual = getattr(whole, kind), getattr(resumed, kind)
        pairs = zip(expected.parameters(), actual.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_decoder_training_leaves_the_encoder_alone() -> None:
    learner, step_loss = a_decoder_stage()
    before = [p.clone() for p in learner.network.get_submodule("encoder").parameters()]
    learner.descend(step_loss(0.0), 0.0)
    after = learner.network.get_submodule("encoder").parameters()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.875), (0.875, 1.0)])
def test_noise_levels_fill_exactly_their_range(low: float, high: float) -> None:
    sigmas = draw_sigmas(1000, torch.Generator().manual_seed(0), low=low, high=high)
    assert sigmas.min() >= low
    assert sigmas.max() <= high
    assert sigmas.max() - sigmas.min() > 0.99 * (high - low)


def test_the_outline_weighs_most_and_the_mean_weight_is_one() -> None:
    weights = cell_weights(sample_scene(random.Random(0)), 13)
    assert tuple(weights.shape) == (1, 7, 12, 20)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert weights.max() > 2 * weights.min()
