import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.clip import Size
from vidmill.media import i420

SIZE = Size(96, 64)
COLOURS = {
    "red": ((255, 0, 0), (63, 102, 240)),
    "green": ((0, 255, 0), (173, 42, 26)),
    "blue": ((0, 0, 255), (32, 240, 118)),
    "white": ((255, 255, 255), (235, 128, 128)),
    "black": ((0, 0, 0), (16, 128, 128)),
}
"""RGB and the 8-bit Y, Cb, Cr that BT.709-6 gives for it."""


def flat(rgb: tuple[int, ...], size: Size = SIZE) -> i420.Pixels:
    return np.full((size.height_px, size.width_px, 3), rgb, np.uint8)


@pytest.mark.parametrize("name", COLOURS)
def test_pure_colours_become_the_numbers_of_bt709(name: str) -> None:
    rgb, wanted = COLOURS[name]
    planes = i420.planes(i420.from_rgb(flat(rgb), SIZE))
    assert wanted == tuple(int(plane[7, 7]) for plane in planes)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_any_flat_colour_comes_back_within_two_levels(rgb: tuple[int, int, int]) -> None:
    frame = i420.from_rgb(flat(rgb), SIZE)
    assert np.abs(i420.to_rgb(frame, SIZE).astype(int) - rgb).max() <= 2


def test_frames_of_the_delivered_size_are_not_filtered() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    luma = i420.planes(i420.from_rgb(noise, SIZE)).y
    exact = 16 + (noise @ [0.2126, 0.7152, 0.0722]) * 219 / 255
    assert np.abs(luma - exact).max() <= 1


def test_enlarging_keeps_shapes_undistorted_and_centred() -> None:
    square = flat((0, 0, 0), Size(80, 48))
    square[16:32, 32:48] = 255
    luma = i420.planes(i420.from_rgb(square, Size(1280, 720))).y
    rows, columns = np.nonzero(luma > 125)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert abs(rows.mean() - 359.5) < 1
    assert abs(columns.mean() - 639.5) < 1


@pytest.mark.parametrize("native", [Size(80, 48), Size(96, 64), Size(50, 90), Size(400, 300)])
def test_every_native_aspect_fills_the_delivered_size(native: Size) -> None:
    frame = i420.from_rgb(flat((200, 30, 90), native), SIZE)
    assert frame.shape == (96, 96)
    assert all(np.ptp(plane) == 0 for plane in i420.planes(frame))
