"""The held-out captions through the front door: submitted, rendered, finished and downloaded."""

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from training.export import MAX_FOLDER_BYTES, folder_bytes
from training.finished_clips import caption_rows, score_manifest
from vidmill.cli.output import Terminal
from vidmill.cli.own_stack import own_stack
from vidmill.client import ClipRequest, Vidmill

SHIPPED: Final = Path(__file__).parents[1] / "src" / "vidmill" / "models" / "tiny"

LEAST: Final = {"background": 0.98, "foreground": 0.95, "shape": 0.90, "motion": 0.90}
"""Share of the captions whose attribute the delivered file must show."""
MAX_SECONDS_PER_CLIP: Final = 10.0
"""Of a 3 s clip on two cores, finishing included."""


def score_public_path(count: int, folder: Path, *, model: Path = SHIPPED) -> dict[str, Any]:
    """Have a fresh `vidmill up` make *count* 3 s clips at 480p, and score the files it delivers.

    Clips, `clips.json` and the server's log are left in *folder*. Seeds are 0, 1, 2 … in the order
    of the captions. `gate` tells what is asked of the model, what was found, and if it is met.

    Raises:
        VidmillError: A clip failed; a score over the others would flatter.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # one line a request otherwise
    folder.mkdir(parents=True, exist_ok=True)
    # Not below *folder*: a Unix socket's path may have 107 bytes at most.
    with (
        tempfile.TemporaryDirectory(prefix="vidmill-gate-") as data,
        own_stack(
            Terminal(),
            Path(data),
            "--model-path",
            str(model.resolve()),
            log=folder / "server.log",
        ) as (url, api_key),
        Vidmill(url, api_key) as client,
    ):
        started = time.monotonic()
        rows = _rendered(client, count, folder)
        seconds = (time.monotonic() - started) / count
    manifest = folder / "clips.json"
    manifest.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    report = score_manifest(manifest)
    return {"gate": gate(report["score"], seconds, folder_bytes(model)), **report}


def gate(score: dict[str, float], seconds: float, size_bytes: int) -> dict[str, dict[str, Any]]:
    """What is asked to what was found: shares at least, seconds a clip and bytes at most."""
    shares = {
        name: {"found": score[name], "least": least, "met": score[name] >= least}
        for name, least in LEAST.items()
    }
    most = {
        "seconds_per_clip": (seconds, MAX_SECONDS_PER_CLIP),
        "bytes": (size_bytes, MAX_FOLDER_BYTES),
    }
    limits = {
        name: {"found": found, "most": limit, "met": found <= limit}
        for name, (found, limit) in most.items()
    }
    return {**shares, **limits}


def _rendered(client: Vidmill, count: int, folder: Path) -> list[dict[str, Any]]:
    rows = caption_rows(count)
    clips = [
        ClipRequest(prompt=row["prompt"], duration_s=3, resolution="480p", seed=seed)
        for seed, row in enumerate(rows)
    ]
    for outcome in client.generate_many(clips):
        name = f"{outcome.index:03}.mp4"
        if outcome.error is not None:
            raise outcome.error
        assert outcome.video is not None
        outcome.video.save(folder / name)
        rows[outcome.index]["file"] = name
    return rows
