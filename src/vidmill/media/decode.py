"""Somebody else's video, back into frames. Nothing in it is trusted: not its size, nor its end."""

from collections.abc import Callable
from typing import Any, BinaryIO

import av

from vidmill.domain.errors import BadOutput
from vidmill.domain.ports import Frames

_RATE_TOLERANCE = 0.01
"""30000/1001 fps is as good as 30; 24 is not."""


def decode_into(
    file: BinaryIO,
    frames: Frames,
    *,
    fps: float,
    most: int,
    on_frame: Callable[[int], None],
) -> int:
    """Decode the video in *file* into *frames* and return how many frames it has.

    *frames* is filled from the front, by the file's own colour tags (BT.601 where it has none:
    FFmpeg's rule); what does not fit is counted and dropped, up to *most*. *on_frame* is called
    with the number read so far, and may raise.

    Raises:
        BadOutput: It is no readable video, or one of another size, rate or length.
    """
    count = 0
    try:
        with av.open(file) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            _check(stream, frames, fps)
            for frame in container.decode(stream):
                if count == most:
                    raise BadOutput(f"the video has more than {most} frames")
                if count < len(frames):
                    frames[count] = _pixels(frame, frames.shape)
                count += 1
                on_frame(count)
    except (av.FFmpegError, IndexError) as error:
        raise BadOutput(f"the video cannot be decoded after {count} frames: {error}") from error
    return count


def _check(stream: Any, frames: Frames, fps: float) -> None:
    """Look at the headers, before a frame of some other size takes memory."""
    context = stream.codec_context
    height, width = frames.shape[1:3]
    if (context.width, context.height) != (width, height):
        raise BadOutput(
            f"the video is {context.width}x{context.height}, asked for was {width}x{height}"
        )
    rate = float(stream.average_rate or 0)
    if abs(rate - fps) > _RATE_TOLERANCE * fps:
        raise BadOutput(f"the video runs at {rate:g} fps, asked for was {fps:g}")


def _pixels(frame: Any, shape: tuple[int, ...]) -> Any:
    if (frame.height, frame.width) != shape[1:3]:  # H.264 may change its size on the way
        raise BadOutput(f"the video changes its size to {frame.width}x{frame.height} on the way")
    return frame.to_ndarray(format="rgb24")
