"""H.264 in MP4, as every browser plays it: yuv420p, BT.709 tagged, index in front of the data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import ThreadType
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from vidmill.domain.clip import Size
from vidmill.domain.errors import InternalError
from vidmill.media.i420 import CHROMA_LOCATION, Pixels

Write = Callable[[Pixels], None]

KEYFRAME_INTERVAL_S = 2
"""A player seeks to a key frame; x264's default of 250 frames would make a 10 s clip one run."""


@contextmanager
def h264_file(path: Path, size: Size, *, fps: int, preset: str, crf: int) -> Iterator[Write]:
    """Open an MP4 at *path* and yield `write(frame)`, which takes I420 frames of *size* in order.

    The file is complete when the block ends, and gone when the block raises.

    Raises:
        OSError: The file cannot be written; `errno` tells why.
        InternalError: The encoder refused.
    """
    try:
        with _wrapped():
            container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        try:
            with _wrapped():
                stream = _add_stream(container, size, fps=fps, preset=preset, crf=crf)
            yield _writer(container, stream, fps)
            with _wrapped():
                container.mux(stream.encode(None))
                container.close()
        except BaseException:
            with suppress(av.FFmpegError):  # the first error is the one to tell
                container.close()
            raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _add_stream(container: Any, size: Size, *, fps: int, preset: str, crf: int) -> Any:
    options = {
        "preset": preset,
        "crf": str(crf),
        "g": str(KEYFRAME_INTERVAL_S * fps),
        "x264-params": f"chromaloc={CHROMA_LOCATION}",
    }
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = size.width_px, size.height_px, "yuv420p"
    context = stream.codec_context
    context.thread_type = ThreadType.FRAME  # PyAV's default cuts frames into slices: larger, slower
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    context.colorspace = Colorspace.ITU709
    context.color_range = ColorRange.MPEG
    return stream


def _writer(container: Any, stream: Any, fps: int) -> Write:
    time_base, next_pts = Fraction(1, fps), iter(range(2**31))

    def write(frame: Pixels) -> None:
        picture = av.VideoFrame.from_ndarray(frame, format="yuv420p")
        picture.pts, picture.time_base = next(next_pts), time_base
        with _wrapped():
            container.mux(stream.encode(picture))

    return write


@contextmanager
def _wrapped() -> Iterator[None]:
    """Let FFmpeg's I/O errors pass (they are OSError too) and wrap the others."""
    try:
        yield
    except OSError:
        raise
    except av.FFmpegError as error:
        raise InternalError(f"x264 or the MP4 muxer failed: {error}") from error
