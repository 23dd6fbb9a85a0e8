"""Scores finished MP4 files against their captions: the public path's clips, not our tensors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from PIL import Image

from training.captions import held_out_captions
from training.evaluate import Answer, details, shares
from training.scorer import measure
from training.vocabulary import ATTRIBUTES
from training.world import FPS, HEIGHT_PX, Floats, Scene


def caption_rows(count: int) -> list[dict[str, Any]]:
    """The held-out captions as JSON objects: ``prompt``, ``language``, ``metadata``."""
    return [
        {
            "prompt": caption,
            "language": language,
            "metadata": {name: asdict(scene)[name] for name in ATTRIBUTES},
        }
        for caption, language, scene in held_out_captions(count)
    ]


BOX: Final = Image.Resampling.BOX
"""Averages areas, so a measured colour is the colour that a viewer sees."""


def decode_small(path: Path) -> Floats:
    """An MP4 at the native frame rate and height: float32 [frames, height, width, 3] in 0..1."""
    frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        every = max(1, round(float(stream.average_rate or FPS) / FPS))
        for k, frame in enumerate(container.decode(stream)):
            if k % every:
                continue
            width = round(HEIGHT_PX * frame.width / frame.height)
            small = frame.to_image().resize((width, HEIGHT_PX), BOX)
            frames.append(np.asarray(small, np.float32) / 255)
    return np.stack(frames)


def score_manifest(manifest: Path) -> dict[str, Any]:
    """Score every clip of a JSON manifest: a list of ``caption_rows`` plus ``file``.

    Paths are taken from the manifest's folder.
    """
    rows = json.loads(manifest.read_text("utf-8"))
    found = [
        Answer(
            row["language"],
            Scene(**{name: row["metadata"][name] for name in ATTRIBUTES}, seed=0),
            measure(decode_small(manifest.parent / row["file"])),
        )
        for row in rows
    ]
    return {"clips": len(found), "score": shares(found), **details(found)}
