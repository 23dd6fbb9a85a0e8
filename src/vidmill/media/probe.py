"""What a finished MP4 really is, read back from the file."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput

BT709_LIMITED = (ColorPrimaries.BT709, ColorTrc.BT709, Colorspace.ITU709, ColorRange.MPEG)
"""Primaries, transfer, matrix (ITU-T H.273 code points 1, 1, 1) and range of all we deliver."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What the container and the stream headers say.

    Attributes:
        colour: Primaries, transfer, matrix, range: H.273 code points, then FFmpeg's 1 = limited.
        is_fast_start: The index (`moov`) lies before the data (`mdat`): plays while it downloads.
    """

    codec: str
    size: Size
    pix_fmt: str
    fps: float
    num_frames: int
    duration_s: float
    colour: tuple[int, int, int, int]
    is_fast_start: bool


def probe(path: Path) -> VideoFacts:
    """Read the headers of the MP4 at *path*; no frame is decoded.

    Raises:
        BadOutput: It is not a readable MP4 with a video stream.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            return VideoFacts(
                codec=context.name,
                size=Size(context.width, context.height),
                pix_fmt=context.pix_fmt or "",
                fps=float(stream.average_rate or 0),
                num_frames=stream.frames,
                duration_s=float((stream.duration or 0) * (stream.time_base or 0)),
                colour=(
                    int(context.color_primaries),
                    int(context.color_trc),
                    int(context.colorspace),
                    int(context.color_range),
                ),
                is_fast_start=_is_fast_start(path),
            )
    except (av.FFmpegError, IndexError, struct.error) as error:
        raise BadOutput(f"{path.name} is not a readable MP4: {error}") from error


def top_boxes(file: BinaryIO) -> Iterator[str]:
    """Yield the types of the top-level boxes, in file order (ISO/IEC 14496-12 §4.2)."""
    while header := file.read(8):
        size, kind = struct.unpack(">I4s", header)
        yield kind.decode("latin-1")
        if size == 0:  # reaches to the end of the file
            return
        if size == 1:
            size = struct.unpack(">Q", file.read(8))[0] - 8
        file.seek(size - 8, 1)


def _is_fast_start(path: Path) -> bool:
    with path.open("rb") as file:
        kinds = list(top_boxes(file))
    return "moov" in kinds and "mdat" in kinds and kinds.index("moov") < kinds.index("mdat")
