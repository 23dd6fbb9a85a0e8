from itertools import product

import pytest

from vidmill.domain.storyboard import Length, Span, problems, spans, total_s


def lengths(*shots: tuple[float, float]) -> list[Length]:
    return [Length(duration_s=duration, crossfade_s=fade) for duration, fade in shots]


def test_a_cut_ends_one_shot_where_the_next_begins() -> None:
    assert spans(lengths((3.0, 0), (4.0, 0)), 24) == [Span(72), Span(96)]


def test_a_crossfade_shows_both_shots_at_once_and_shortens_the_whole() -> None:
    shots = lengths((3.0, 1.0), (4.0, 0))

    assert total_s(shots) == 6.0
    assert spans(shots, 24) == [Span(72, fade=24), Span(96)]


@pytest.mark.parametrize("fps", [16, 24, 25, 30])
@pytest.mark.parametrize("crossfade_s", [0.0, 0.3, 0.5, 1.5])
def test_the_whole_is_as_long_as_asked_to_half_a_frame_however_many_shots(
    crossfade_s: float, fps: int
) -> None:
    shots = lengths(*[(3.0 + 0.1 * n, crossfade_s) for n in range(20)])

    frames = sum(span.frames - span.fade for span in spans(shots, fps))

    assert abs(frames - total_s(shots) * fps) <= 0.5


@pytest.mark.parametrize("fps", [16, 24, 25, 30])
def test_fades_of_half_a_shot_never_show_three_shots_at_once(fps: int) -> None:
    for durations in product([3.0, 3.1, 3.3], repeat=3):
        half = min(durations) / 2
        first, second, third = spans(lengths(*[(d, half) for d in durations]), fps)
        assert first.fade + second.fade <= second.frames
        assert third.fade == 0


@pytest.mark.parametrize(
    ("shots", "pointer", "code"),
    [
        (lengths((3.0, 0)), "#/shots", "min_items"),
        (lengths(*[(3.0, 0)] * 5), "#/shots", "max_items"),
        (lengths((9.0, 0), (9.0, 0)), "#/shots", "max"),
        (lengths((3.0, -0.1), (3.0, 0)), "#/shots/0/crossfade", "min"),
        (lengths((5.0, 1.6), (3.0, 0)), "#/shots/0/crossfade", "max"),
        (lengths((3.0, 0), (3.0, 0.5)), "#/shots/1/crossfade", "unsupported"),
    ],
)
def test_what_no_storyboard_can_be_is_named(shots: list[Length], pointer: str, code: str) -> None:
    (wrong,) = problems(shots, shots_max=4, duration_max_s=16.0)

    assert (wrong.pointer, wrong.code) == (pointer, code)


def test_a_fade_of_half_the_shorter_shot_is_right() -> None:
    shots = lengths((5.0, 1.5), (3.0, 0))

    assert list(problems(shots, shots_max=4, duration_max_s=16.0)) == []


def test_what_the_last_shot_would_fade_into_does_not_count() -> None:
    assert total_s(lengths((3.0, 0), (3.0, 99.0))) == 6.0
