"""The stages in order, each resumable in a run folder, and how many steps each makes.

Run folder: ``text.pt codec.pt shared.pt high.pt low.pt decoder.pt`` are checkpoints,
``text/ codec/`` finished parts, ``latents-*.pt`` the banks, ``model/`` the result.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from diffusers import AutoencoderKLWan

from training.codec import finished_codec, new_codec, new_codec_learner, train_codec
from training.decoder import new_decoder_learner, train_decoder
from training.evaluate import Sampling, evaluate
from training.experts import (
    LENGTH_WEIGHTS,
    Role,
    load_average,
    new_expert,
    new_expert_learner,
    train_expert,
)
from training.export import export_folder, load_pipeline, new_pipeline
from training.latents import ensure_banks
from training.text_tower import (
    TextTower,
    new_text_encoder,
    new_text_learner,
    new_tokenizer,
    train_text,
    understood,
)
from training.workers import run_apart, run_together

log = logging.getLogger(__name__)

STEPS: Final = {
    "text": 2400,
    "codec": 2100,
    "shared": 7200,
    "high": 2900,
    "low": 2900,
    "decoder": 570,
}
"""Stage to its optimiser steps. Steps, not minutes, so that the same command makes the same weights
on a fast machine and on a slow one. About 150 minutes on two quiet cores, by the processor seconds
measured per step: text .055, codec 1, an expert .6, decoder .75."""
REPORT_LENGTHS: Final = (13, 21, 41)


def text_stage(run: Path, num_steps: int) -> None:
    """Tokenizer and text encoder."""
    tokenizer = new_tokenizer()
    learner = new_text_learner(new_text_encoder(len(tokenizer)))
    train_text(learner, tokenizer, run / "text.pt", num_steps=num_steps)
    tower = TextTower(tokenizer, learner.average)
    log.info("held-out captions understood: %s", understood(tower, 200))
    _finish(run / "text", tower.save)


def codec_stage(run: Path, num_steps: int) -> None:
    """The codec's checkpoint, by several workers."""
    train_codec(new_codec_learner(new_codec()), run / "codec.pt", num_steps=num_steps)


def codec_part(run: Path) -> None:
    """The finished codec of the checkpoint, whose encoder all later stages share."""
    _finish(run / "codec", finished_codec(run / "codec.pt").save_pretrained)


def _finish(part: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``part``, then rename: whoever is killed in between leaves no half of one."""
    partial = part.with_name(f".{part.name}.new")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    partial.rename(part)


def banks_stage(run: Path, lengths: tuple[int, ...]) -> None:
    """The latents of some clip lengths."""
    ensure_banks(AutoencoderKLWan.from_pretrained(run / "codec").eval(), run, lengths)


def expert_stage(run: Path, role: Role, num_steps: int) -> None:
    """One expert role; the specialists start from the shared network's average."""
    expert = new_expert()
    if role != "shared":
        load_average(expert, run / "shared.pt")
    learner = new_expert_learner(expert, role)
    train_expert(learner, role, run, TextTower.load(run / "text"), num_steps=num_steps)


def decoder_stage(run: Path, num_steps: int) -> None:
    """The decoder's checkpoint, by several workers."""
    learner = new_decoder_learner(AutoencoderKLWan.from_pretrained(run / "codec"))
    train_decoder(learner, run / "decoder.pt", num_steps=num_steps)


def assemble(run: Path) -> Any:
    """A pipeline of the best parts that the run folder holds so far."""
    codec = AutoencoderKLWan.from_pretrained(run / "codec").eval()
    if (run / "decoder.pt").exists():
        load_average(codec, run / "decoder.pt")
    experts = []
    for role in ("high", "low"):
        checkpoint = run / f"{role}.pt"
        expert = new_expert().eval()
        load_average(expert, checkpoint if checkpoint.exists() else run / "shared.pt")
        experts.append(expert)
    return new_pipeline(TextTower.load(run / "text"), codec, *experts)


def train_all(run: Path, share: float = 1.0) -> None:
    """Every stage, then the exported folder and its report; a killed call is called again.

    Args:
        run: Where everything is kept. The same folder wants the same ``share`` again.
        share: Of each stage's steps; a hundredth is a rehearsal.
    """
    run.mkdir(parents=True, exist_ok=True)
    train_parts(run, {stage: max(1, round(share * steps)) for stage, steps in STEPS.items()})
    export_folder(assemble(run), run / "model")
    report = evaluate(
        load_pipeline(run / "model"),
        REPORT_LENGTHS,
        count=200,
        sampling=Sampling(),
        sheet_folder=run,
    )
    (run / "report.json").write_text(json.dumps(report, indent=2), "utf-8")


def train_parts(run: Path, steps: dict[str, int]) -> None:
    """Every stage, each in processes of one thread, whatever this one has."""
    if not (run / "text").exists():
        run_apart((text_stage, (run, steps["text"])))
    if not (run / "codec").exists():
        run_together(codec_stage, run, steps["codec"])
        run_apart((codec_part, (run,)))
    lengths = tuple(LENGTH_WEIGHTS)
    run_apart((banks_stage, (run, lengths[::2])), (banks_stage, (run, lengths[1::2])))
    run_together(expert_stage, run, "shared", steps["shared"])
    run_apart(
        (expert_stage, (run, "high", steps["high"])),
        (expert_stage, (run, "low", steps["low"])),
    )
    run_together(decoder_stage, run, steps["decoder"])
