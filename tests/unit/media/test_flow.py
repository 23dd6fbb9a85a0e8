import numpy as np
import pytest

from tests.clips import moving_clip
from vidmill.domain.clip import Size
from vidmill.media import i420
from vidmill.media.flow import blend_between, flow_between

SIZE = Size(832, 480)
STEPS = [1.5, 6.0]
"""16 -> 24 fps takes the nearer frame, 4 -> 24 fades."""


def psnr_db(a: i420.Pixels, b: i420.Pixels) -> float:
    error = float(np.mean((a.astype(float) - b) ** 2))
    return float(10 * np.log10(255**2 / max(1e-9, error)))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("step_px", [1.0, 2.5, 4.0, 8.0])
def test_a_moving_shape_is_found_between_two_frames_without_ghosts(
    step_px: float, steps: float
) -> None:
    fine = moving_clip(7, step_px=step_px / 6)
    truth = [i420.from_rgb(frame, SIZE) for frame in fine]
    at = flow_between(truth[0], truth[6], steps=steps)
    fade = blend_between(truth[0], truth[6], steps=steps)
    for i in (1, 2, 3, 4, 5):
        assert psnr_db(at(i / 6), truth[i]) > 30
        assert psnr_db(at(i / 6), truth[i]) > psnr_db(fade(i / 6), truth[i])


@pytest.mark.parametrize("steps", STEPS)
def test_things_of_the_same_luma_as_their_ground_are_followed_by_colour(steps: float) -> None:
    fine = moving_clip(7, step_px=0.5)
    inside = (fine[..., 0:1] - 20.0) / 220  # the square's share of each pixel
    same_luma = np.rint(inside * (230, 120, 20) + (1 - inside) * (60, 150, 220)).astype(np.uint8)
    truth = [i420.from_rgb(frame, SIZE) for frame in same_luma]
    middle = flow_between(truth[0], truth[6], steps=steps)(0.5)
    fade = blend_between(truth[0], truth[6], steps=steps)(0.5)
    assert psnr_db(middle, truth[3]) > psnr_db(fade, truth[3]) + 5


@pytest.mark.parametrize("steps", STEPS)
def test_over_a_cut_the_scenes_fade_and_nothing_is_pulled_apart(steps: float) -> None:
    rng = np.random.default_rng(5)
    pair = rng.integers(0, 256, (2, 48, 80, 3), dtype=np.uint8)
    before, after = (i420.from_rgb(frame, SIZE) for frame in pair)
    frame = flow_between(before, after, steps=steps)(0.25)
    assert np.abs(frame - (0.75 * before + 0.25 * after)).max() <= 1


@pytest.mark.parametrize("steps", STEPS)
def test_the_same_pair_gives_the_same_bytes(steps: float) -> None:
    first, second = (i420.from_rgb(frame, SIZE) for frame in moving_clip(2))
    once, again = (flow_between(first, second, steps=steps)(0.4) for _ in range(2))
    assert np.array_equal(once, again)
