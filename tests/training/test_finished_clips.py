"""Finished MP4 files are scored as a viewer sees them: cropped, enlarged, compressed."""

import json
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
from PIL import Image

from training.finished_clips import caption_rows, decode_small, score_manifest
from training.public_path import gate
from training.vocabulary import ATTRIBUTES
from training.world import HEIGHT_PX, Scene, render

SIZE_PX = (854, 480)
CROPPED_HEIGHT_PX = 45
FINISHED_FPS = 24
REPEATS = 6


def write_mp4(scene: Scene, path: Path) -> None:
    """A 480p MP4 of a rendered scene: cropped to 16:9, enlarged, every frame held for 1/4 s."""
    top = (HEIGHT_PX - CROPPED_HEIGHT_PX) // 2
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", FINISHED_FPS, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        for frame in render(scene, 13)[:, top : top + CROPPED_HEIGHT_PX]:
            image = Image.fromarray((frame * 255).astype(np.uint8)).resize(SIZE_PX)
            for _ in range(REPEATS):
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


def test_finished_files_of_true_clips_score_one(tmp_path: Path) -> None:
    scenes = [Scene("red", "blue", "star", "left", 1), Scene("white", "green", "square", "up", 2)]
    rows = []
    for k, scene in enumerate(scenes):
        write_mp4(scene, tmp_path / f"{k}.mp4")
        metadata = {name: asdict(scene)[name] for name in ATTRIBUTES}
        rows.append(
            {"prompt": "-", "language": "en", "metadata": metadata, "file": f"{k}.mp4"},
        )
    manifest = tmp_path / "clips.json"
    manifest.write_text(json.dumps(rows), "utf-8")
    report = score_manifest(manifest)
    assert report["clips"] == 2
    assert report["score"] == dict.fromkeys(ATTRIBUTES, 1.0)


def test_a_finished_file_is_read_at_native_rate_and_height(tmp_path: Path) -> None:
    write_mp4(Scene("red", "blue", "circle", "up", 1), tmp_path / "clip.mp4")
    frames = decode_small(tmp_path / "clip.mp4")
    assert frames.shape == (13, HEIGHT_PX, 85, 3)


def test_caption_rows_hold_what_an_api_client_needs() -> None:
    rows = caption_rows(6)
    assert [row["language"] for row in rows] == ["en", "zh", "ja"] * 2
    assert all(set(row["metadata"]) == set(ATTRIBUTES) for row in rows)
    assert all(row["prompt"] for row in rows)


def test_the_gate_names_what_is_missed_and_meets_its_own_bars() -> None:
    score = {"background": 0.98, "foreground": 0.95, "shape": 0.89, "motion": 0.90}
    bars = gate(score, seconds=10.1, size_bytes=12_000_000)
    assert [name for name, bar in bars.items() if not bar["met"]] == ["shape", "seconds_per_clip"]
    assert bars["shape"] == {"found": 0.89, "least": 0.90, "met": False}
