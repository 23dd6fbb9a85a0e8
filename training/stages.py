"""The stages in order, each resumable in a run folder, and how they share the time.

Run folder: ``text.pt codec.pt shared.pt high.pt low.pt decoder.pt`` are checkpoints,
``text/ codec/ decoder/`` finished parts, ``latents-*.pt`` the banks, ``model/`` the result.
"""

import json
import logging
import time
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

SHARES: Final = {
    "text": 0.015,
    "codec": 0.235,
    "shared": 0.5,
    "high": 0.2,
    "low": 0.2,
    "decoder": 0.05,
}
"""Stage to its share of the minutes; the two experts of the fork run side by side."""
REPORT_LENGTHS: Final = (13, 21, 41)


def text_stage(run: Path, budget_s: float) -> None:
    """Tokenizer and text encoder."""
    if (run / "text").exists():
        return
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(len(tokenizer))
    learner = new_text_learner(encoder)
    train_text(learner, tokenizer, run / "text.pt", budget_s=budget_s, clock=time.monotonic)
    tower = TextTower(tokenizer, learner.average)
    log.info("held-out captions understood: %s", understood(tower, 200))
    tower.save(run / "text")


def codec_stage(run: Path, budget_s: float) -> None:
    """The codec's checkpoint, by several workers."""
    learner = new_codec_learner(new_codec())
    train_codec(learner, run / "codec.pt", budget_s=budget_s, clock=time.monotonic)


def banks_stage(run: Path, lengths: tuple[int, ...]) -> None:
    """The latents of some clip lengths."""
    ensure_banks(AutoencoderKLWan.from_pretrained(run / "codec").eval(), run, lengths)


def expert_stage(run: Path, role: Role, budget_s: float) -> None:
    """One expert role; the specialists start from the shared network's average."""
    expert = new_expert()
    if role != "shared":
        load_average(expert, run / "shared.pt")
    learner = new_expert_learner(expert, role)
    train_expert(learner, role, run, TextTower.load(run / "text"), budget_s=budget_s)


def decoder_stage(run: Path, budget_s: float) -> None:
    """The decoder's checkpoint, by several workers."""
    learner = new_decoder_learner(AutoencoderKLWan.from_pretrained(run / "codec"))
    train_decoder(learner, run / "decoder.pt", budget_s=budget_s, clock=time.monotonic)


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


def train_all(run: Path, minutes: float) -> None:
    """Every stage within ``minutes``, then the exported folder and its report.

    Encoding the latents and the final evaluation add a few minutes. A second call continues where
    a killed one stopped.
    """
    run.mkdir(parents=True, exist_ok=True)
    budget_s = {stage: share * minutes * 60 for stage, share in SHARES.items()}
    text_stage(run, budget_s["text"])
    run_together(codec_stage, run, budget_s["codec"])
    if not (run / "codec").exists():
        finished_codec(run / "codec.pt").save_pretrained(run / "codec")
    lengths = tuple(LENGTH_WEIGHTS)
    run_apart((banks_stage, (run, lengths[::2])), (banks_stage, (run, lengths[1::2])))
    run_together(expert_stage, run, "shared", budget_s["shared"])
    run_apart(
        (expert_stage, (run, "high", budget_s["high"])),
        (expert_stage, (run, "low", budget_s["low"])),
    )
    run_together(decoder_stage, run, budget_s["decoder"])
    export_folder(assemble(run), run / "model")
    report = evaluate(
        load_pipeline(run / "model"),
        REPORT_LENGTHS,
        count=200,
        sampling=Sampling(),
        sheet_folder=run,
    )
    (run / "report.json").write_text(json.dumps(report, indent=2), "utf-8")
