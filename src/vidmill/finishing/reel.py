"""From the clips of shots to the files of a storyboard: one pass, one new generation of coding."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidmill.domain.clip import Size
from vidmill.domain.storyboard import Span
from vidmill.finishing.pipeline import (
    PREVIEW_MAX_FPS,
    Encoding,
    FinishedClip,
    Look,
    all_or_none,
    write_files,
)
from vidmill.media.i420 import Pixels
from vidmill.media.join import joined, read_frames

PREVIEW_PICTURES_MAX = 100
"""Beyond, the preview runs faster than the clip: nobody looks at a picture for two minutes."""


@dataclass(frozen=True, kw_only=True)
class Reel:
    """How the clips follow each other."""

    size: Size
    fps: int
    spans: Sequence[Span]

    @property
    def num_frames(self) -> int:
        return sum(span.frames - span.fade for span in self.spans)


def finish_reel(
    clips: Sequence[Path],
    reel: Reel,
    out_dir: Path,
    *,
    encoding: Encoding,
    on_frame: Callable[[int], object] = lambda _done: None,
) -> FinishedClip:
    """Join *clips*, MP4 files of the reel's size and rate; on any error no file is left.

    Memory holds a few frames of two clips, however long they are, and the preview's pictures.

    Args:
        clips: In order, one for each span.
        reel: How they follow each other.
        out_dir: Folder for the files.
        encoding: How the whole is coded.
        on_frame: Told how many frames are coded, after each.

    Raises:
        BadOutput: A clip cannot be read or is of another size; or the file came out wrong.
        DiskFull: There is no room in *out_dir*.
        StorageFailed: *out_dir* cannot be written for another reason.
        InternalError: The encoder failed.
    """
    real_time = -(-reel.fps // PREVIEW_MAX_FPS)
    look = Look(
        size=reel.size,
        fps=reel.fps,
        num_frames=reel.num_frames,
        poster_at=reel.num_frames // 2,
        preview_stride=max(real_time, -(-reel.num_frames // PREVIEW_PICTURES_MAX)),
        preview_fps=reel.fps / real_time,
    )

    def told() -> Iterator[Pixels]:
        read = [read_frames(path, reel.size) for path in clips]
        for done, frame in enumerate(joined(read, reel.spans), 1):
            yield frame
            on_frame(done)

    with all_or_none(out_dir):
        return write_files(told(), look, out_dir, encoding=encoding)
