import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips import decode
from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput
from vidmill.domain.storyboard import Length, spans
from vidmill.finishing import Encoding, FinishedClip, Reel, finish_reel
from vidmill.media.encode import h264_file
from vidmill.media.i420 import from_rgb
from vidmill.media.probe import probe

SIZE = Size(64, 48)
QUICK = Encoding(preset="ultrafast", crf=12)
RED, GREEN, BLUE = (220, 30, 20), (20, 180, 40), (20, 40, 210)


def shot(path: Path, rgb: tuple[int, int, int], *, frames: int, size: Size = SIZE) -> Path:
    picture = from_rgb(np.full((size.height_px, size.width_px, 3), rgb, np.uint8), size)
    with h264_file(path, size, fps=24, preset="ultrafast", crf=12) as write:
        for _ in range(frames):
            write(picture)
    return path


def join(folder: Path, shots: Sequence[Path], lengths: Sequence[Length]) -> FinishedClip:
    reel = Reel(size=SIZE, fps=24, spans=spans(lengths, 24))
    return finish_reel(shots, reel, folder / "out", encoding=QUICK)


def test_three_shots_become_one_clip_of_the_house_format(tmp_path: Path) -> None:
    names = {"red": RED, "green": GREEN, "blue": BLUE}
    shots = [shot(tmp_path / f"{name}.mp4", rgb, frames=72) for name, rgb in names.items()]
    lengths = [Length(duration_s=3.0, crossfade_s=1.0)] + [Length(duration_s=3.0)] * 2

    files = join(tmp_path, shots, lengths).files

    facts = probe(files["video"].path)
    assert (facts.num_frames, facts.fps, facts.is_fast_start) == (192, 24.0, True)
    video = decode(files["video"].path).astype(int)
    fade_middle = [(a + b) / 2 for a, b in zip(RED, GREEN, strict=True)]
    for at, rgb in ((47, RED), (59.5, fade_middle), (72, GREEN), (119, GREEN), (120, BLUE)):
        seen = video[[int(at), int(at + 0.5)]].mean(0) if at % 1 else video[int(at)]
        assert np.abs(seen - rgb).max() <= 8, at
    with Image.open(files["poster"].path) as poster:
        assert np.abs(np.asarray(poster).astype(int) - GREEN).max() <= 8
    with Image.open(files["preview"].path) as preview:
        assert preview.size == (64, 48)
        assert getattr(preview, "n_frames", 1) > 1


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    path = shot(tmp_path / "shot.mp4", RED, frames=72)
    peaks = []
    for count in (4, 16):
        tracemalloc.start()
        join(tmp_path, [path] * count, [Length(duration_s=3.0, crossfade_s=0.5)] * count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    frame_bytes = 64 * 48 * 3 // 2
    pictures_bytes = 100 * 64 * 48 * 3
    assert peaks[1] - peaks[0] < pictures_bytes + 40 * frame_bytes


def test_a_shot_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    shots = [
        shot(tmp_path / "a.mp4", RED, frames=72),
        shot(tmp_path / "b.mp4", BLUE, frames=72, size=Size(32, 16)),
    ]

    with pytest.raises(BadOutput, match="32x16"):
        join(tmp_path, shots, [Length(duration_s=3.0)] * 2)

    assert list((tmp_path / "out").iterdir()) == []
