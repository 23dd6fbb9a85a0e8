from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import decode, presentation_times_s
from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput
from vidmill.media import i420
from vidmill.media.encode import h264_file
from vidmill.media.probe import BT709_LIMITED, probe, top_boxes

SIZE = Size(96, 64)
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (12, 200, 99)]


def encode(path: Path, frames: list[i420.Pixels], *, fps: int = 24) -> None:
    with h264_file(path, SIZE, fps=fps, preset="ultrafast", crf=12) as write:
        for frame in frames:
            write(frame)


def flat_frame(rgb: tuple[int, int, int]) -> i420.Pixels:
    return i420.from_rgb(np.full((64, 96, 3), rgb, np.uint8), SIZE)


@pytest.mark.parametrize("rgb", COLOURS)
def test_a_decoder_that_obeys_the_tags_gets_the_colour_back(
    tmp_path: Path, rgb: tuple[int, int, int]
) -> None:
    encode(tmp_path / "clip.mp4", [flat_frame(rgb)] * 3)
    assert np.abs(decode(tmp_path / "clip.mp4").astype(int) - rgb).max() <= 4


@pytest.mark.parametrize("fps", [16, 24, 25, 30])
def test_frame_times_are_exact(tmp_path: Path, fps: int) -> None:
    encode(tmp_path / "clip.mp4", [flat_frame((9, 9, 9))] * 41, fps=fps)
    assert presentation_times_s(tmp_path / "clip.mp4") == pytest.approx(
        [i / fps for i in range(41)]
    )


def test_probe_tells_what_was_written(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", [flat_frame((9, 9, 9))] * 25, fps=25)
    facts = probe(tmp_path / "clip.mp4")
    assert (facts.codec, facts.pix_fmt, facts.size) == ("h264", "yuv420p", SIZE)
    assert (facts.num_frames, facts.fps, facts.duration_s) == (25, 25.0, 1.0)
    assert facts.colour == BT709_LIMITED
    assert facts.is_fast_start


def test_the_index_lies_before_the_data(tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", [flat_frame((9, 9, 9))] * 5)
    with (tmp_path / "clip.mp4").open("rb") as file:
        kinds = list(top_boxes(file))
    assert kinds[0] == "ftyp"
    assert kinds.index("moov") < kinds.index("mdat")


def test_a_player_finds_a_key_frame_every_two_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    frames = [rng.integers(16, 236, (96, 96), dtype=np.uint8) for _ in range(80)]
    encode(tmp_path / "clip.mp4", frames, fps=16)
    assert {0, 32, 64} <= set(key_frames(tmp_path / "clip.mp4"))


def key_frames(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        return [i for i, frame in frames if frame.key_frame]


def test_a_file_whose_block_raises_is_removed(tmp_path: Path) -> None:
    def broken() -> None:
        with h264_file(path, SIZE, fps=24, preset="ultrafast", crf=12) as write:
            write(flat_frame((1, 2, 3)))
            raise KeyError

    path = tmp_path / "clip.mp4"
    with pytest.raises(KeyError):
        broken()
    assert not path.exists()


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        encode(tmp_path / "gone" / "clip.mp4", [flat_frame((1, 2, 3))])


@pytest.mark.parametrize("content", [b"", b"not a movie", b"\0\0\0\x18ftypisom" + bytes(200)])
def test_probe_refuses_what_is_no_movie(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(BadOutput, match=r"clip\.mp4 is not a readable MP4"):
        probe(tmp_path / "clip.mp4")
