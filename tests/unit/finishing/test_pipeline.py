import hashlib
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import make_spec
from tests.clips import decode, flat_clip, moving_clip
from tests.watches import RecordingWatch
from vidmill.domain.clip import DELIVERED_SIZES, Aspect, ClipSpec, Resolution, Size
from vidmill.domain.errors import BadOutput, JobCancelled, StorageFailed
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames
from vidmill.finishing import Encoding, FinishedClip, finish_clip
from vidmill.media.probe import probe

QUICK = Encoding(preset="ultrafast", crf=18)
SHORT = make_spec(num_frames=5, duration_s=1.0)


def finish(
    frames: Frames, spec: ClipSpec, out_dir: Path, encoding: Encoding = QUICK
) -> FinishedClip:
    return finish_clip(frames, spec, out_dir, encoding=encoding, watch=RecordingWatch())


def spec_of(frames: Frames, **changes: object) -> ClipSpec:
    native = Size(frames.shape[2], frames.shape[1])
    return replace(make_spec(), native=native, num_frames=len(frames), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [16, 24, 25, 30])
@pytest.mark.parametrize("duration_s", [3.0, 3.7, 5.04, 9.99, 10.0])
def test_the_file_is_as_long_as_asked_to_half_a_frame(
    tmp_path: Path, duration_s: float, fps: int
) -> None:
    frames = flat_clip((10, 200, 30), num_frames=41, height=16)
    small = spec_of(frames, size=Size(64, 48), fps=fps, duration_s=duration_s)
    clip = finish(frames, small, tmp_path / "out", replace(QUICK, interpolation="blend"))
    facts = probe(clip.files["video"].path)
    assert abs(facts.duration_s - duration_s) <= 0.5 / fps + 1e-9
    assert (facts.num_frames, facts.fps) == (round(duration_s * fps), fps)


@pytest.mark.parametrize("resolution", Resolution)
@pytest.mark.parametrize("rgb", [(230, 30, 20), (20, 60, 220), (250, 250, 250)])
def test_a_colour_survives_the_whole_way(
    tmp_path: Path, rgb: tuple[int, int, int], resolution: Resolution
) -> None:
    frames = flat_clip(rgb, num_frames=3)
    size = DELIVERED_SIZES[resolution, Aspect.WIDE]
    spec = spec_of(frames, size=size, resolution=resolution, duration_s=0.3)
    clip = finish(frames, spec, tmp_path / "out")
    assert np.abs(decode(clip.files["video"].path).astype(int) - rgb).max() <= 4
    with Image.open(clip.files["poster"].path) as poster:
        assert np.abs(np.asarray(poster).astype(int) - rgb).max() <= 4
    with Image.open(clip.files["preview"].path) as preview:
        assert np.abs(np.asarray(preview.convert("RGB")).astype(int) - rgb).max() <= 6


def test_every_file_is_what_its_record_says(tmp_path: Path) -> None:
    clip = finish(moving_clip(5), SHORT, tmp_path / "out")
    assert set(clip.files) == {"video", "poster", "preview"}
    for file in clip.files.values():
        content = file.path.read_bytes()
        assert file.size_bytes == len(content)
        assert file.sha256 == hashlib.sha256(content).hexdigest()
        assert file.md5 == hashlib.md5(content).hexdigest()
    types = [file.content_type for file in clip.files.values()]
    assert types == ["video/mp4", "image/jpeg", "image/webp"]
    assert clip.files["preview"].size.width_px <= 320
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        file.path.name for file in clip.files.values()
    )


def test_the_moving_shape_moves_evenly_in_the_delivered_clip(tmp_path: Path) -> None:
    clip = finish(moving_clip(step_px=4.0), make_spec(), tmp_path / "out")
    yellow = decode(clip.files["video"].path)[..., 0] > 130
    centres = np.array([np.nonzero(frame)[1].mean() for frame in yellow])
    steps = np.diff(centres[: 6 * 10])
    assert steps.mean() == pytest.approx(4.0 * 10.4 / 6, rel=0.03)
    assert steps.min() > 0
    assert steps.max() < 2 * steps.mean()


def test_at_equal_size_and_rate_each_native_frame_is_delivered_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    levels = rng.permutation(25) * 9 + 10
    frames = np.stack([np.full((48, 80, 3), level, np.uint8) for level in levels])
    spec = spec_of(frames, size=Size(80, 48), fps=16, native_fps=16, duration_s=1.5)
    clip = finish(frames, spec, tmp_path / "out")
    delivered = decode(clip.files["video"].path).mean(axis=(1, 2, 3))
    assert np.abs(delivered - levels[:24]).max() < 3


def test_frames_may_be_read_only(tmp_path: Path) -> None:
    frames = moving_clip(5)
    frames.setflags(write=False)
    assert finish(frames, SHORT, tmp_path / "out").files["video"].size_bytes > 1000


def test_progress_moves_with_every_frame(tmp_path: Path) -> None:
    watch = RecordingWatch()
    finish_clip(moving_clip(5), SHORT, tmp_path / "out", encoding=QUICK, watch=watch)
    assert watch.reports == [(Phase.FINISHING, i + 1, 24) for i in range(24)]
    assert watch.checks >= 24


def test_the_same_frames_give_the_same_files(tmp_path: Path) -> None:
    once, again = (finish(moving_clip(5), SHORT, tmp_path / name) for name in "ab")
    for variant, file in once.files.items():
        assert file.sha256 == again.files[variant].sha256


def test_a_cancel_ends_it_within_a_frame_and_leaves_no_file(tmp_path: Path) -> None:
    watch = RecordingWatch(cancel_in=Phase.FINISHING, cancel_at_report=10)
    with pytest.raises(JobCancelled):
        finish_clip(moving_clip(5), SHORT, tmp_path / "out", encoding=QUICK, watch=watch)
    assert len(watch.reports) == 10
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "frames",
    [moving_clip(12), moving_clip()[:, :40], moving_clip().astype(np.float32)],
    ids=["too few", "too small", "not bytes"],
)
def test_frames_that_are_not_what_the_spec_says_are_refused(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(BadOutput, match="the spec asks uint8"):
        finish(frames, make_spec(), tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file stands here")
    with pytest.raises(StorageFailed):
        finish(moving_clip(), make_spec(), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file stands here"


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from tests.builders import make_spec
    from tests.clips import moving_clip
    from tests.watches import RecordingWatch
    from vidmill.domain.errors import DiskFull
    from vidmill.finishing import Encoding, finish_clip

    for room_bytes in map(int, sys.argv[2:]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, resource.RLIM_INFINITY))
        try:
            finish_clip(moving_clip(), make_spec(), Path(sys.argv[1]),
                        encoding=Encoding(preset="ultrafast"), watch=RecordingWatch())
        except DiskFull as error:
            print(f"{room_bytes} {error}")
"""
"""Runs in a process of its own, as the limit stays. A write beyond it fails as on a full disk."""


def test_a_full_disk_is_said_and_leaves_no_partial_file(tmp_path: Path) -> None:
    limits = ["0", "4000", "60000"]
    lines = run_apart(FULL_DISK, str(tmp_path / "out"), *limits).splitlines()
    assert [line.split(" while ")[0] for line in lines] == [f"{n} no room left" for n in limits]
    assert list((tmp_path / "out").iterdir()) == []


MEMORY = """
    import resource, sys
    from pathlib import Path
    from tests.builders import make_spec
    from tests.clips import flat_clip
    from tests.watches import RecordingWatch
    from vidmill.finishing import Encoding, finish_clip

    def peak_bytes(name, num_frames, duration_s):
        frames = flat_clip((9, 99, 199), num_frames=num_frames)
        spec = make_spec(num_frames=num_frames, duration_s=duration_s)
        finish_clip(frames, spec, Path(sys.argv[1]) / name,
                    encoding=Encoding(preset="ultrafast"), watch=RecordingWatch())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    print(peak_bytes("short", 13, 3.0), peak_bytes("long", 41, 10.0))
"""


def test_a_long_clip_takes_hardly_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """The 168 frames between them are 201 MB in RGB: so nothing keeps delivered frames."""
    short, long = (int(number) for number in run_apart(MEMORY, str(tmp_path)).split())
    assert long - short < 40e6


def run_apart(script: str, *arguments: str) -> str:
    """Return what *script* prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout
