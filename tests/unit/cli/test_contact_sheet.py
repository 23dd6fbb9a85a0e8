"""The contact sheet: every clip a row, every caption legible or replaced, never empty boxes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidmill.cli.contact_sheet import Fonts, Strip, can_draw, write_contact_sheet
from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput
from vidmill.media.encode import h264_file
from vidmill.media.i420 import from_rgb
from vidmill.media.sample import sample_frames

SIZE = Size(160, 96)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve grey frames, from black to white."""
    path = tmp_path / "clip.mp4"
    with h264_file(path, SIZE, fps=24, preset="ultrafast", crf=10) as write:
        for level in np.linspace(0, 255, 12):
            frame = np.full((SIZE.height_px, SIZE.width_px, 3), round(level), np.uint8)
            write(from_rgb(frame, SIZE))
    return path


def test_samples_are_spread_from_the_first_frame_to_the_last(clip: Path) -> None:
    levels = [np.asarray(frame).mean() for frame in sample_frames(clip, 6)]
    expected = [round(k * 11 / 5) * 255 / 11 for k in range(6)]
    assert levels == pytest.approx(expected, abs=4)


def test_damaged_clip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(BadOutput, match=r"x\.mp4"):
        sample_frames(path, 6)


def test_sheet_has_a_row_for_each_clip(clip: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    strip = Strip(path=clip, caption="a grey clip", fallback="clip.mp4")
    write_contact_sheet(one, [strip])
    write_contact_sheet(two, [strip, strip])
    first, second = Image.open(one), Image.open(two)
    assert first.width == second.width
    assert second.height - first.height == pytest.approx(first.height, abs=20)


def test_font_without_the_characters_is_not_used() -> None:
    fonts = Fonts(folders=())
    assert can_draw(fonts.plain, "a red ball")
    assert not can_draw(fonts.plain, "緑の三角形")


def test_caption_without_a_font_is_replaced_by_the_file_name(clip: Path, tmp_path: Path) -> None:
    """The private-use character is in no font of any machine."""
    odd = Strip(path=clip, caption="\U0010fffd", fallback="clip.mp4")
    plain = Strip(path=clip, caption="clip.mp4", fallback="?")
    sheets: list[bytes] = []
    for strip in (odd, plain):
        path = tmp_path / f"{len(sheets)}.png"
        write_contact_sheet(path, [strip])
        sheets.append(Image.open(path).tobytes())
    assert sheets[0] == sheets[1]
