"""One pass over a clip: each frame is scaled, retimed and encoded before the next one is touched.

Native frames are only ever read, one at a time, so they may be a view on shared memory. Beside
them the pass holds two scaled frames, `LOOKAHEAD` finished ones, the small preview's pictures and
what x264 buffers.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidmill.domain.clip import ClipSpec, Size
from vidmill.domain.errors import BadOutput, storage_error
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames, Watch
from vidmill.finishing.checksums import checksums
from vidmill.media import i420
from vidmill.media.encode import h264_file
from vidmill.media.i420 import Pixels
from vidmill.media.probe import BT709_LIMITED, VideoFacts, probe
from vidmill.media.retime import ahead, poster_index, retimed, schedule
from vidmill.media.stills import preview_size, write_poster, write_preview

NAMES = {"video": "clip.mp4", "poster": "poster.jpg", "preview": "preview.webp"}
"""File name of each variant, the last segment of its key in the blob store."""

LOOKAHEAD = 4
"""Frames made ahead of the encoder: enough to cover the flow of one pair, small enough to hold."""

PREVIEW_MAX_FPS = 10
PREVIEW_WIDTH_PX = 320


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a clip is coded.

    Attributes:
        preset: x264 preset.
        crf: x264 constant rate factor, 0..51; lower is larger and better.
        interpolation: How the frames between native ones are made.
    """

    preset: str = "medium"
    crf: int = 18
    interpolation: Literal["flow", "blend"] = "flow"


@dataclass(frozen=True, kw_only=True)
class FinishedFile:
    path: Path
    content_type: str
    size_bytes: int
    md5: str
    sha256: str
    size: Size


@dataclass(frozen=True, kw_only=True)
class FinishedClip:
    """The files of a clip by variant (`video`, `poster`, `preview`), and seconds by step."""

    files: Mapping[str, FinishedFile]
    timings_s: Mapping[str, float]


def finish_clip(
    frames: Frames, spec: ClipSpec, out_dir: Path, *, encoding: Encoding, watch: Watch
) -> FinishedClip:
    """Make the files *spec* asks for in the folder *out_dir*; on any error none of them is left.

    *frames* are read, never copied whole nor written. The watch is asked before each delivered
    frame and told `Phase.FINISHING` after it.

    Raises:
        JobCancelled: The watch said so.
        BadOutput: The frames are not what the spec says, or the file is not.
        DiskFull: There is no room in *out_dir*.
        StorageFailed: *out_dir* cannot be written for another reason.
        InternalError: The encoder failed.
    """
    _check_frames(frames, spec)
    with all_or_none(out_dir):
        return _finish(frames, spec, out_dir, encoding=encoding, watch=watch)


def _finish(
    frames: Frames, spec: ClipSpec, out_dir: Path, *, encoding: Encoding, watch: Watch
) -> FinishedClip:
    moments = schedule(len(frames), spec.native_fps, delivered=spec.delivered_frames, fps=spec.fps)
    native = (i420.from_rgb(frame, spec.size) for frame in frames)
    made = ahead(retimed(native, moments, interpolation=encoding.interpolation), LOOKAHEAD)

    def watched() -> Iterator[Pixels]:
        for done, frame in enumerate(made, 1):
            watch.check()
            yield frame
            watch.report(Phase.FINISHING, done, len(moments))

    look = Look(
        size=spec.size,
        fps=spec.fps,
        num_frames=spec.delivered_frames,
        poster_at=poster_index(moments),
        preview_stride=-(-spec.fps // PREVIEW_MAX_FPS),
        preview_fps=spec.fps / -(-spec.fps // PREVIEW_MAX_FPS),
    )
    return write_files(watched(), look, out_dir, encoding=encoding)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the files of a clip are to be.

    Attributes:
        poster_at: Which frame the poster shows.
        preview_stride: The preview shows one frame of so many.
        preview_fps: Its pictures a second.
    """

    size: Size
    fps: int
    num_frames: int
    poster_at: int
    preview_stride: int
    preview_fps: float


def write_files(
    frames: Iterable[Pixels], look: Look, out_dir: Path, *, encoding: Encoding
) -> FinishedClip:
    """Encode *frames* (I420, of the size to deliver) as they come, and write poster and preview.

    Raises:
        BadOutput: The file is not what *look* says.
        OSError, InternalError: As `h264_file`. Call it inside `all_or_none`.
    """
    began = time.perf_counter()
    video, poster, preview = (out_dir / name for name in NAMES.values())
    small, pictures = preview_size(look.size, width_px=PREVIEW_WIDTH_PX), []
    with h264_file(
        video, look.size, fps=look.fps, preset=encoding.preset, crf=encoding.crf
    ) as write:
        for i, frame in enumerate(frames):
            write(frame)
            if i == look.poster_at:
                write_poster(poster, i420.to_rgb(frame, look.size))
            if i % look.preview_stride == 0:
                pictures.append(i420.to_rgb(frame, small))
    encoded = time.perf_counter()
    write_preview(preview, pictures, fps=look.preview_fps)
    _check_video(probe(video), look)
    files = {
        "video": _finished(video, "video/mp4", look.size),
        "poster": _finished(poster, "image/jpeg", look.size),
        "preview": _finished(preview, "image/webp", small),
    }
    done = time.perf_counter()
    return FinishedClip(
        files=files, timings_s={"encoding": encoded - began, "packaging": done - encoded}
    )


def _finished(path: Path, content_type: str, size: Size) -> FinishedFile:
    md5, sha256 = checksums(path)
    return FinishedFile(
        path=path,
        content_type=content_type,
        size_bytes=path.stat().st_size,
        md5=md5,
        sha256=sha256,
        size=size,
    )


@contextmanager
def all_or_none(out_dir: Path) -> Iterator[None]:
    """Make *out_dir*; when the block raises, remove our files from it."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for name in NAMES.values():
            with suppress(OSError):  # the first error is the one to tell
                (out_dir / name).unlink()
        if isinstance(error, OSError):
            raise storage_error(error, "writing the files of a clip") from error
        raise


def _check_frames(frames: Frames, spec: ClipSpec) -> None:
    wanted = (spec.num_frames, spec.native.height_px, spec.native.width_px, 3)
    if frames.shape != wanted or frames.dtype != "uint8":
        raise BadOutput(
            f"the engine gave {frames.dtype} frames {frames.shape}, the spec asks uint8 {wanted}"
        )


def _check_video(facts: VideoFacts, look: Look) -> None:
    """Compare what the file is with what it was to be."""
    wanted = VideoFacts(
        codec="h264",
        size=look.size,
        pix_fmt="yuv420p",
        fps=look.fps,
        num_frames=look.num_frames,
        duration_s=look.num_frames / look.fps,
        colour=BT709_LIMITED,
        is_fast_start=True,
    )
    if facts != wanted:
        raise BadOutput(f"the file is {facts}, and was to be {wanted}")
