from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.clips import decode
from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput
from vidmill.domain.storyboard import Span
from vidmill.media.encode import h264_file
from vidmill.media.i420 import Pixels, from_rgb
from vidmill.media.join import joined, mixed, read_frames

SIZE = Size(32, 16)


def grey(level: int) -> Pixels:
    return np.full((24, 32), level, np.uint8)


def ramp(start: int, count: int) -> Iterator[Pixels]:
    """Yield frames of the levels *start*, *start* + 1, and so on."""
    return (grey(start + i) for i in range(count))


def levels(frames: Iterator[Pixels]) -> list[int]:
    return [int(frame[0, 0]) for frame in frames]


def test_a_cut_is_exact() -> None:
    whole = joined([ramp(10, 4), ramp(100, 3)], [Span(4), Span(3)])

    assert levels(whole) == [10, 11, 12, 13, 100, 101, 102]


def test_the_middle_of_a_crossfade_is_the_mean_and_the_rest_is_untouched() -> None:
    clips = [iter([grey(20)] * 5), iter([grey(220)] * 5)]

    whole = levels(joined(clips, [Span(5, fade=3), Span(5)]))

    assert whole == [20, 20, 70, 120, 170, 220, 220]


def test_fades_that_meet_in_a_shot_show_each_of_its_frames_once() -> None:
    clips = [iter([grey(0)] * 4), iter([grey(100)] * 4), iter([grey(200)] * 4)]

    whole = levels(joined(clips, [Span(4, fade=2), Span(4, fade=2), Span(4)]))

    assert whole == [0, 0, 33, 67, 133, 167, 200, 200]


def test_a_clip_longer_than_its_span_loses_its_end_and_one_shorter_holds_its_last() -> None:
    whole = joined([ramp(10, 5), ramp(100, 2)], [Span(4), Span(3)])

    assert levels(whole) == [10, 11, 12, 13, 100, 101, 101]


def test_a_clip_that_lacks_more_than_rounding_takes_is_refused() -> None:
    with pytest.raises(BadOutput, match="1 of the 4 frames"):
        list(joined([ramp(10, 1), ramp(100, 4)], [Span(4), Span(4)]))


def test_no_clip_is_read_further_than_it_is_shown() -> None:
    read: list[int] = []

    def clip(number: int) -> Iterator[Pixels]:
        for _ in range(100):
            read.append(number)
            yield grey(number)

    whole = joined([clip(1), clip(2), clip(3)], [Span(4, fade=1), Span(4), Span(4)])
    first_half = [next(whole) for _ in range(6)]

    assert len(first_half) == 6
    assert (read.count(1), read.count(2), read.count(3)) == (4, 3, 0)


def test_frames_are_read_as_they_were_coded(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    red = from_rgb(np.full((16, 32, 3), (200, 30, 30), np.uint8), SIZE)
    with h264_file(path, SIZE, fps=24, preset="ultrafast", crf=1) as write:
        for _ in range(5):
            write(red)

    frames = list(read_frames(path, SIZE))

    assert len(frames) == len(decode(path)) == 5
    assert np.abs(frames[2].astype(int) - red).max() <= 2


def test_a_clip_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with h264_file(path, SIZE, fps=24, preset="ultrafast", crf=20) as write:
        write(grey(9))

    with pytest.raises(BadOutput, match="32x16"):
        list(read_frames(path, Size(64, 48)))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video")

    with pytest.raises(BadOutput, match=r"clip\.mp4"):
        list(read_frames(tmp_path / "clip.mp4", SIZE))


def test_a_mix_is_linear_in_the_coded_values() -> None:
    assert int(mixed(grey(16), grey(235), 0.25)[0, 0]) == round(16 + 219 / 4)
