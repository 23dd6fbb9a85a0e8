import itertools
import threading
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.clip import Size
from vidmill.media import i420
from vidmill.media.retime import INTERPOLATIONS, Moment, ahead, poster_index, retimed, schedule

clips = st.fixed_dictionaries(
    {
        "native": st.integers(1, 200),
        "native_fps": st.sampled_from([4, 8, 16, 24]),
        "delivered": st.integers(1, 320),
        "fps": st.sampled_from([16, 24, 25, 30]),
    }
)


Clip = dict[str, int]


def plan(clip: Clip) -> list[Moment]:
    return schedule(
        clip["native"], clip["native_fps"], delivered=clip["delivered"], fps=clip["fps"]
    )


@given(clips)
def test_every_moment_lies_inside_the_native_clip_and_time_runs_evenly(clip: Clip) -> None:
    places = [Fraction(m.index) + Fraction(m.share) for m in plan(clip)]
    assert len(places) == clip["delivered"]
    assert places[0] == 0
    assert places[-1] <= clip["native"] - 1
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert all(abs(gap - gaps[0]) < 1e-9 for gap in gaps)


@given(clips)
def test_a_clip_that_is_long_enough_plays_at_its_true_speed(clip: Clip) -> None:
    end_s = (clip["delivered"] - 1) / clip["fps"]
    moments = plan(clip)
    if (clip["native"] - 1) / clip["native_fps"] >= end_s:
        last = moments[-1]
        assert last.index + last.share == pytest.approx(end_s * clip["native_fps"])


@given(st.integers(1, 200), st.sampled_from([4, 16, 24]))
def test_equal_rates_pass_native_frames_through(native: int, fps: int) -> None:
    moments = schedule(native, fps, delivered=native, fps=fps)
    assert [(i, 0.0) for i in range(native)] == [(m.index, m.share) for m in moments]


@given(clips)
def test_the_poster_is_a_native_frame(clip: Clip) -> None:
    moments = plan(clip)
    assert moments[poster_index(moments)].share == 0


def frames(count: int) -> list[i420.Pixels]:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    return [i420.from_rgb(frame, Size(64, 48)) for frame in rgb]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_native_frames_on_a_delivered_instant_are_byte_for_byte_the_same(
    interpolation: str,
) -> None:
    native = frames(5)
    moments = schedule(5, 4, delivered=17, fps=16)
    delivered = list(retimed(native, moments, interpolation=interpolation))
    assert len(delivered) == 17
    assert all(np.array_equal(delivered[4 * i], native[i]) for i in range(5))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_still_clip_stays_still(interpolation: str) -> None:
    native = frames(1) * 4
    moments = schedule(4, 4, delivered=18, fps=24)
    delivered = retimed(native, moments, interpolation=interpolation)
    assert all(np.array_equal(frame, native[0]) for frame in delivered)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_native_frames_are_read_once_and_only_as_far_as_needed(interpolation: str) -> None:
    read = []

    def reader() -> Iterator[i420.Pixels]:
        for i, frame in enumerate(frames(6)):
            read.append(i)
            yield frame

    delivered = retimed(reader(), schedule(6, 4, delivered=24, fps=24), interpolation=interpolation)
    next(delivered)
    assert len(read) <= 2
    list(delivered)
    assert sorted(set(read)) == read


def test_ahead_keeps_order_and_never_runs_further_than_told() -> None:
    made: list[int] = []
    taken: list[int] = []

    def source() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    for item in ahead(source(), 3):
        taken.append(item)
        assert len(made) <= len(taken) + 3
    assert taken == list(range(20))


def test_ahead_ends_its_thread_when_its_reader_stops() -> None:
    items = ahead(iter(range(1000)), 4)
    assert next(items) == 0
    items.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("retime")]


def test_ahead_passes_on_the_error_of_its_source() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    items = ahead(broken(), 4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)
