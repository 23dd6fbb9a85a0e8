from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidmill.domain.clip import Size
from vidmill.media.stills import preview_size, write_poster, write_preview, write_preview_frame


def test_a_poster_keeps_its_colour(tmp_path: Path) -> None:
    write_poster(tmp_path / "p.jpg", np.full((48, 80, 3), (200, 30, 90), np.uint8))
    with Image.open(tmp_path / "p.jpg") as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (80, 48), "RGB")
        assert np.abs(np.asarray(picture).astype(int) - (200, 30, 90)).max() <= 3


def test_a_preview_frame_is_scaled_and_cut_never_distorted(tmp_path: Path) -> None:
    square = np.zeros((64, 64, 3), np.uint8)
    square[28:36, 28:36] = 255

    write_preview_frame(tmp_path / "f.jpg", square, Size(320, 180))

    with Image.open(tmp_path / "f.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 180))
        rows, columns = np.nonzero(np.asarray(picture.convert("L")) > 128)
        assert [int(np.ptp(rows)), int(np.ptp(columns))] == [39, 39]


def test_a_preview_moves_and_repeats_for_ever(tmp_path: Path) -> None:
    pictures = [np.full((48, 80, 3), (20 * i, 90, 200), np.uint8) for i in range(10)]
    write_preview(tmp_path / "p.webp", pictures, fps=8)
    with Image.open(tmp_path / "p.webp") as movie:
        assert (movie.format, movie.size) == ("WEBP", (80, 48))
        assert movie.n_frames == 10  # type: ignore[attr-defined]
        assert movie.info["loop"] == 0
        movie.seek(9)
        movie.load()
        assert movie.info["duration"] == 125
        assert np.abs(np.asarray(movie.convert("RGB")).astype(int) - (180, 90, 200)).max() <= 6


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (Size(832, 480), Size(320, 184)),
        (Size(1280, 720), Size(320, 180)),
        (Size(200, 100), Size(200, 100)),
    ],
)
def test_previews_are_small_and_never_enlarged(size: Size, wanted: Size) -> None:
    assert preview_size(size, width_px=320) == wanted
