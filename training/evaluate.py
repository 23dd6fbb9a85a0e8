"""Scores the exported folder: held-out captions through WanPipeline, measured from pixels."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from training.captions import held_out_captions
from training.codec import psnr_db
from training.latents import to_pixels
from training.scorer import Expected, Sighting, hits, measure, score
from training.text_tower import MAX_TOKENS
from training.vocabulary import ATTRIBUTES, COLOUR_NAMES, LANGUAGES, MOTION_NAMES, SHAPE_NAMES
from training.world import HEIGHT_PX, WIDTH_PX, Floats, Scene, render

log = logging.getLogger(__name__)

NUM_STEPS: Final = 12
GUIDANCE_HIGH: Final = 3.0
GUIDANCE_LOW: Final = 2.0
BATCH_SIZE: Final = 10
CODEC_CLIPS: Final = 40
SHEET_ROWS: Final = 14
SHEET_COLUMNS: Final = 7


@dataclass(frozen=True)
class Sampling:
    """How clips are generated; the defaults are the shipped profile's."""

    num_steps: int = NUM_STEPS
    guidance_high: float = GUIDANCE_HIGH
    guidance_low: float = GUIDANCE_LOW


@dataclass(frozen=True)
class Answer:
    """One generated clip's caption and what was seen in it."""

    language: str
    scene: Scene
    seen: Sighting

    @property
    def hits(self) -> dict[str, bool]:
        """Attribute to right or wrong."""
        return hits(expected_of(self.scene), self.seen)


def expected_of(scene: Scene) -> Expected:
    """The four attributes of a scene by name."""
    return {name: str(getattr(scene, name)) for name in ATTRIBUTES}


def generate(
    pipeline: Any, captions: Sequence[str], num_frames: int, *, seed: int, sampling: Sampling
) -> Floats:
    """Clips of the captions: float32 [n, frames, height, width, 3] in 0..1."""
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(captions))]
    frames = pipeline(
        list(captions),
        negative_prompt=[""] * len(captions),
        height=HEIGHT_PX,
        width=WIDTH_PX,
        num_frames=num_frames,
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_high,
        guidance_scale_2=sampling.guidance_low,
        max_sequence_length=MAX_TOKENS,
        generator=generators,
        output_type="np",
    ).frames
    return np.asarray(frames, np.float32)


def generated_clips(
    pipeline: Any, captions: Sequence[str], num_frames: int, sampling: Sampling
) -> Iterator[Floats]:
    """One clip per caption, made in small batches; caption k has seed k."""
    for start in range(0, len(captions), BATCH_SIZE):
        batch = captions[start : start + BATCH_SIZE]
        yield from generate(pipeline, batch, num_frames, seed=start, sampling=sampling)


def answers(
    pipeline: Any, num_frames: int, *, count: int, sampling: Sampling, sheet: Path | None = None
) -> list[Answer]:
    """Generate and measure the first ``count`` held-out captions; may draw a contact sheet."""
    rows = held_out_captions(count)
    found: list[Answer] = []
    shown: list[tuple[Floats, Floats]] = []
    clips = generated_clips(pipeline, [row[0] for row in rows], num_frames, sampling)
    for (_, language, scene), clip in zip(rows, clips, strict=True):
        found.append(Answer(language, scene, measure(clip)))
        if len(shown) < SHEET_ROWS:
            shown.append((render(scene, num_frames), clip))
    if sheet is not None:
        save_sheet(shown, sheet)
    return found


def save_sheet(pairs: Sequence[tuple[Floats, Floats]], path: Path) -> None:
    """A PNG with one row per clip: what the caption means left, what was generated right."""
    rows = []
    for pair in pairs:
        picks = np.linspace(0, len(pair[0]) - 1, SHEET_COLUMNS).round().astype(int)
        rows.append(np.concatenate([frame for clip in pair for frame in clip[picks]], 1))
    pixels = (np.concatenate(rows).clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, optimize=True)


def shares(found: Sequence[Answer]) -> dict[str, float]:
    """Share of right answers per attribute."""
    return {name: float(np.mean([answer.hits[name] for answer in found])) for name in ATTRIBUTES}


def split(
    found: Sequence[Answer], attribute: str, names: Sequence[str], key: Callable[[Answer], str]
) -> dict[str, float]:
    """Share of right answers of one attribute, by the group that ``key`` names."""
    groups = {name: [a.hits[attribute] for a in found if key(a) == name] for name in names}
    return {name: float(np.mean(group)) for name, group in groups.items() if group}


def details(found: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Shares by language (all four right), object colour, shape and motion."""
    everything = {
        language: [all(a.hits.values()) for a in found if a.language == language]
        for language in LANGUAGES
    }
    return {
        "all four by language": {k: float(np.mean(v)) for k, v in everything.items() if v},
        "shape by language": split(found, "shape", LANGUAGES, lambda a: a.language),
        "motion by language": split(found, "motion", LANGUAGES, lambda a: a.language),
        "colour": split(found, "foreground", COLOUR_NAMES, lambda a: a.scene.foreground),
        "shape": split(found, "shape", SHAPE_NAMES, lambda a: a.scene.shape),
        "motion": split(found, "motion", MOTION_NAMES, lambda a: a.scene.motion),
    }


@torch.no_grad()
def codec_report(codec: Any, num_frames: int, count: int = CODEC_CLIPS) -> dict[str, float]:
    """The ceiling: true clips through the codec alone, scored, with their PSNR."""
    scenes = [scene for _, _, scene in held_out_captions(count)]
    pixels = to_pixels([render(scene, num_frames) for scene in scenes])
    decoded = codec.decode(codec.encode(pixels).latent_dist.mean).sample
    clips = (decoded.permute(0, 2, 3, 4, 1).numpy() + 1) / 2
    found = score([expected_of(scene) for scene in scenes], clips)
    return {**found, "psnr_db": psnr_db(codec, pixels)}


def evaluate(
    pipeline: Any,
    lengths: Sequence[int],
    *,
    count: int,
    sampling: Sampling,
    sheet_folder: Path | None = None,
) -> dict[str, Any]:
    """The whole report by clip length, ready for JSON."""
    report: dict[str, Any] = {}
    for num_frames in lengths:
        sheet = sheet_folder / f"sheet-{num_frames}.png" if sheet_folder else None
        started = time.monotonic()
        found = answers(pipeline, num_frames, count=count, sampling=sampling, sheet=sheet)
        report[f"{num_frames} frames"] = {
            "generated": shares(found),
            "codec alone": codec_report(pipeline.vae, num_frames),
            "seconds_per_clip": (time.monotonic() - started) / count,
            **details(found),
        }
        log.info("%d frames: %s", num_frames, shares(found))
    return report
