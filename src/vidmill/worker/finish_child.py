"""The finish child: frames in, stored files out. One process, one clip at a time, no GPU."""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmill.domain.clip import Asset, ClipResult, ClipSpec
from vidmill.domain.errors import InternalError
from vidmill.domain.job import Phase
from vidmill.domain.ports import BlobStore
from vidmill.finishing import Encoding, finish_clip, store_clip
from vidmill.media.threads import limit_threads
from vidmill.storage import open_blobs
from vidmill.telemetry import configure_logging
from vidmill.worker import frames as shared
from vidmill.worker.child import Link, RunWatch, connect


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What every clip is finished with. *scratch* is a folder of this process alone."""

    blobs: BlobStore
    encoding: Encoding
    scratch: Path


def finish(desk: Desk, link: Link, order: Mapping[str, Any], fd: int) -> None:
    """Finish and store one clip; answer with its result or with the reason there is none."""
    run = order["run"]
    watch, out_dir = RunWatch(link, run), desk.scratch / str(run)
    try:
        result = _finish(desk, order, fd, watch=watch, out_dir=out_dir)
    except Exception as error:  # noqa: BLE001  the edge of this process: the supervisor decides
        link.say_failure("failed", error, run=run)
    else:
        link.say("stored", run=run, result=result.to_json())
    finally:
        shutil.rmtree(out_dir, ignore_errors=True)


def _finish(
    desk: Desk, order: Mapping[str, Any], fd: int, *, watch: RunWatch, out_dir: Path
) -> ClipResult:
    spec = ClipSpec.from_json(order["spec"])
    frames = shared.attach(fd, tuple(order["shape"]))
    os.close(fd)
    finished = finish_clip(frames, spec, out_dir, encoding=desk.encoding, watch=watch)
    watch.report(Phase.STORING, 0, 1)
    watch.check()
    began = time.monotonic()
    assets = store_clip(desk.blobs, order["prefix"], finished)
    timings = order["timings"] | finished.timings_s | {"storing": time.monotonic() - began}
    return _result(spec, assets, order, timings)


def _result(
    spec: ClipSpec, assets: dict[str, Asset], order: Mapping[str, Any], timings: Mapping[str, float]
) -> ClipResult:
    return ClipResult(
        assets=assets,
        size=spec.size,
        native=spec.native,
        native_fps=spec.native_fps,
        native_frames=spec.num_frames,
        fps=spec.fps,
        num_frames=spec.delivered_frames,
        duration_s=spec.delivered_frames / spec.fps,
        seed=spec.seed,
        model=order["identity"],
        timings_s={phase: round(seconds, 4) for phase, seconds in timings.items()},
    )


def main(arguments: list[str]) -> None:
    link = connect(arguments)
    start, _ = link.hear()
    configure_logging(start["log_level"], start["log_format"])
    limit_threads()
    desk = Desk(
        blobs=open_blobs(start["storage_url"]),
        encoding=Encoding(**start["encoding"]),
        scratch=Path(start["scratch"]),
    )
    shutil.rmtree(desk.scratch, ignore_errors=True)
    link.say("ready")
    while True:
        order, fd = link.hear()
        if fd is None:
            link.say_failure("failed", InternalError("no frames came along"), run=order["run"])
            continue
        finish(desk, link, order, fd)


if __name__ == "__main__":
    main(sys.argv[1:])
