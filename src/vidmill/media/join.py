"""Shots into one: read frame by frame, cut or faded into each other.

A cross-fade is the weighted mean of the coded values, Y'CbCr as they lie in the file: what editors
call a dissolve. In linear light the middle of a fade between black and white would be much brighter
than either eye or editor expects.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput
from vidmill.domain.storyboard import Span
from vidmill.media.i420 import Pixels

HELD_MAX = 2
"""Frames by which a clip may be too short for its span: each end of both is rounded by itself."""


def read_frames(path: Path, size: Size) -> Iterator[Pixels]:
    """Yield the frames of the MP4 at *path* as I420, decoding one at a time.

    Raises:
        BadOutput: It cannot be decoded, or its frames are not of *size*.
    """
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams.video[0]):
                if (frame.width, frame.height) != (size.width_px, size.height_px):
                    found = f"{frame.width}x{frame.height}"
                    raise BadOutput(f"{path.name} is {found}, the other shots are {size}")
                yield frame.to_ndarray(format="yuv420p")
    except (av.FFmpegError, IndexError) as error:
        raise BadOutput(f"{path.name} cannot be decoded: {error}") from error


def joined(clips: Sequence[Iterator[Pixels]], spans: Sequence[Span]) -> Iterator[Pixels]:
    """Yield the frames of the whole: each clip over its span, faded into the next one.

    What a clip has beyond its span is left out; a frame or two that it lacks repeat its last one.
    Two frames are held at a time, beside what the clips hold.

    Raises:
        BadOutput: A clip is shorter than that.
    """
    leaving: Iterator[Pixels] = iter(())
    fade = 0
    for clip, span in zip(clips, spans, strict=True):
        frames = _fitted(clip, span.frames)
        both = zip(islice(leaving, fade), islice(frames, fade), strict=True)
        for i, (old, new) in enumerate(both, 1):
            yield mixed(old, new, i / (fade + 1))
        yield from islice(frames, span.frames - fade - span.fade)
        leaving, fade = frames, span.fade


def mixed(old: Pixels, new: Pixels, share: float) -> Pixels:
    """Return the frame that is *share* 0..1 of the way from *old* to *new*."""
    return np.asarray(cv2.addWeighted(old, 1 - share, new, share, 0), np.uint8)


def _fitted(frames: Iterator[Pixels], count: int) -> Iterator[Pixels]:
    """Yield exactly *count* frames."""
    last, missing = None, count
    for last in islice(frames, count):
        missing -= 1
        yield last
    if last is None or missing > HELD_MAX:
        raise BadOutput(f"a shot has {count - missing} of the {count} frames it must show")
    for _ in range(missing):
        yield last
