"""The join child: shots' files in, a storyboard's files out. A process for one joining.

Not a thread of the process that serves: decoding, blending and coding would hold its interpreter
whenever they are not in a codec, and a damaged file that crashes a decoder takes nobody along.

    python -m vidmill.worker.join_child PARENT_PID < order.json

It says one JSON object a line: `{"progress": 0.5}` now and then, at the end `{"stored": …}` or
`{"failed": CODE, "message": …}`.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput, InternalError, NotFound, ShotMissing, VidmillError
from vidmill.domain.ports import BlobStore
from vidmill.domain.storyboard import JoinedClip, Span
from vidmill.finishing import Encoding, Reel, finish_reel, store_clip
from vidmill.media.threads import limit_threads
from vidmill.storage import open_blobs
from vidmill.telemetry import configure_logging
from vidmill.worker.proc import die_with

SAY_EVERY_S = 0.5
NICENESS = 10
"""Answering requests and finishing clips come before joining."""


def join(
    order: Mapping[str, Any], blobs: BlobStore, folder: Path, on_progress: Callable[[float], object]
) -> JoinedClip:
    """Fetch the clips of *order* into *folder*, join them, store the files.

    Raises:
        ShotMissing: A clip's file was deleted.
        WorkError: Anything else that went wrong.
    """
    reel = Reel(
        size=Size(*order["size"]),
        fps=order["fps"],
        spans=[Span(frames, fade) for frames, fade in order["spans"]],
    )
    began = time.monotonic()
    clips = [
        _fetched(blobs, clip, folder / f"shot{number}.mp4", number)
        for number, clip in enumerate(order["clips"], 1)
    ]
    fetched = time.monotonic()
    finished = finish_reel(
        clips,
        reel,
        folder / "out",
        encoding=Encoding(**order["encoding"]),
        on_frame=lambda done: on_progress(done / reel.num_frames),
    )
    coded = time.monotonic()
    assets = store_clip(blobs, order["prefix"], finished)
    timings = {"fetching": fetched - began, **finished.timings_s}
    timings["storing"] = time.monotonic() - coded
    return JoinedClip(
        revision=0,
        assets=assets,
        fps=reel.fps,
        num_frames=reel.num_frames,
        duration_s=reel.num_frames / reel.fps,
        timings_s={phase: round(seconds, 4) for phase, seconds in timings.items()},
    )


def _fetched(blobs: BlobStore, clip: Mapping[str, str], path: Path, number: int) -> Path:
    """Write a stored clip to *path*, and see that it is what was stored."""
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for piece in blobs.read(clip["key"]):
                digest.update(piece)
                file.write(piece)
    except NotFound as error:
        raise ShotMissing(f"the file of shot {number} was deleted; replace the shot") from error
    if digest.hexdigest() != clip["sha256"]:
        raise BadOutput(f"the file of shot {number} is not what was stored; replace the shot")
    return path


def _say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    die_with(int(arguments[0]))
    os.nice(NICENESS)
    order = json.load(sys.stdin)
    configure_logging(order["log_level"], order["log_format"])
    limit_threads()
    said_at = 0.0

    def on_progress(share: float) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SAY_EVERY_S:
            said_at = time.monotonic()
            _say(progress=share)

    folder = Path(order["scratch"])
    folder.mkdir(parents=True)
    try:
        joined = join(order, open_blobs(order["storage_url"]), folder, on_progress)
    except Exception as error:  # noqa: BLE001  the edge of this process
        known = error if isinstance(error, VidmillError) else InternalError(repr(error))
        _say(failed=known.code, message=str(known))
    else:
        _say(stored=joined.to_json())


if __name__ == "__main__":
    main(sys.argv[1:])
