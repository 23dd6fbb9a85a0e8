"""The held-out captions through the front door: submitted, rendered, finished and downloaded."""

import json
import logging
from pathlib import Path
from typing import Any

from training.finished_clips import caption_rows, score_manifest
from vidmill.client import ClipRequest, Vidmill


def score_public_path(count: int, folder: Path) -> dict[str, Any]:
    """Have a running `vidmill up` make *count* 3 s clips at 480p, and score the files it delivers.

    Clips and `clips.json` are left in *folder*. Seeds are 0, 1, 2 … in the order of the captions.

    Raises:
        VidmillError: A clip failed; a score over the others would flatter.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # one line a request otherwise
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(caption_rows(count))
    clips = [
        ClipRequest(prompt=row["prompt"], duration_s=3, resolution="480p", seed=seed)
        for seed, row in enumerate(rows)
    ]
    with Vidmill() as vidmill:
        for outcome in vidmill.generate_many(clips):
            name = f"{outcome.index:03}.mp4"
            if outcome.error is not None:
                raise outcome.error
            assert outcome.video is not None
            outcome.video.save(folder / name)
            rows[outcome.index]["file"] = name
    manifest = folder / "clips.json"
    manifest.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return score_manifest(manifest)
