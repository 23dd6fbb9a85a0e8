import io
from pathlib import Path

import numpy as np
import pytest

from tests.twins import mp4
from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput, JobCancelled
from vidmill.domain.ports import Frames
from vidmill.media import i420
from vidmill.media.decode import decode_into
from vidmill.media.encode import h264_file

SIZE = Size(96, 64)


def clip(num_frames: int = 5, *, size: Size = SIZE, fps: int = 16) -> bytes:
    return mp4({}, size, num_frames=num_frames, fps=fps)


def decode(
    data: bytes, num_frames: int = 5, *, most: int | None = None, fps: float = 16
) -> tuple[int, Frames]:
    frames = np.zeros((num_frames, 64, 96, 3), np.uint8)
    count = decode_into(
        io.BytesIO(data), frames, fps=fps, most=most or num_frames, on_frame=lambda _count: None
    )
    return count, frames


def test_a_tagged_colour_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with h264_file(path, SIZE, fps=16, preset="ultrafast", crf=12) as write:
        for _ in range(5):
            write(i420.from_rgb(np.full((64, 96, 3), (255, 0, 0), np.uint8), SIZE))
    count, frames = decode(path.read_bytes())
    assert count == 5
    assert np.abs(frames.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("num_frames", [1, 5])
def test_every_frame_is_read(num_frames: int) -> None:
    count, frames = decode(clip(num_frames), num_frames)
    assert count == num_frames
    assert all(frame.std() > 0 for frame in frames)


def test_frames_behind_the_last_place_are_counted_and_dropped() -> None:
    count, frames = decode(clip(7), 5, most=7)
    assert count == 7
    assert np.array_equal(frames, decode(clip(7), 7)[1][:5])


def test_missing_frames_leave_their_places_empty() -> None:
    count, frames = decode(clip(3), 5)
    assert (count, frames[3:].max()) == (3, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (clip(6), "more than 5 frames"),
        (clip(size=Size(64, 64)), "the video is 64x64, asked for was 96x64"),
        (clip(fps=24), "runs at 24 fps, asked for was 16"),
        (b"", "cannot be decoded"),
        (b"<html>not a video</html>", "cannot be decoded"),
        (clip()[:200], "cannot be decoded"),
    ],
    ids=["too long", "another size", "another rate", "empty", "no video", "torn"],
)
def test_another_clip_than_was_asked_for_is_refused_with_the_reason(
    data: bytes, reason: str
) -> None:
    with pytest.raises(BadOutput, match=reason):
        decode(data)


def test_ntsc_rates_pass_for_their_round_names() -> None:
    assert decode(clip(fps=30), fps=30000 / 1001)[0] == 5


def test_the_caller_may_stop_at_any_frame() -> None:
    def stop(count: int) -> None:
        if count == 2:
            raise JobCancelled

    frames = np.zeros((5, 64, 96, 3), np.uint8)
    with pytest.raises(JobCancelled):
        decode_into(io.BytesIO(clip()), frames, fps=16, most=5, on_frame=stop)
    assert frames[2:].max() == 0
