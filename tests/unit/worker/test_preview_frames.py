"""Pictures of running clips: kept beside the clip, and never in the way of the run."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import make_spec
from vidmill.domain.errors import DiskFull
from vidmill.domain.ports import BlobStore, Picture
from vidmill.storage import open_blobs
from vidmill.worker.preview_frames import PreviewFrames

PICTURE: Picture = np.full((48, 80, 3), (200, 30, 90), np.uint8)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs((tmp_path / "files").as_uri())


def test_a_picture_is_a_small_jpeg_of_the_clips_shape(tmp_path: Path, blobs: BlobStore) -> None:
    previews = PreviewFrames(blobs, tmp_path / "scratch")

    previews.shower(make_spec(), "t2v_0/1")(3, PICTURE)
    previews.settle()

    path = tmp_path / "picture.jpg"
    path.write_bytes(b"".join(blobs.read("t2v_0/1/step-3.jpg")))
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 184))
    assert path.stat().st_size < 20_000
    assert list((tmp_path / "scratch").iterdir()) == []


class _SlowBlobs:
    """A store that takes one file and keeps it until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.keys: list[str] = []

    def put_file(self, key: str, _path: Path, *, content_type: str) -> None:
        assert content_type == "image/jpeg"
        self.keys.append(key)
        assert self.go_on.wait(10)


@pytest.fixture
def slow() -> Iterator[_SlowBlobs]:
    made = _SlowBlobs()
    yield made
    made.go_on.set()


def test_a_slow_store_costs_pictures_and_no_time(tmp_path: Path, slow: _SlowBlobs) -> None:
    previews = PreviewFrames(slow, tmp_path)  # type: ignore[arg-type]
    show = previews.shower(make_spec(), "t2v_0/1")

    for step in (3, 6, 9):
        show(step, PICTURE)
    slow.go_on.set()
    previews.settle()

    assert slow.keys == ["t2v_0/1/step-3.jpg"]


class _FullBlobs:
    def put_file(self, key: str, _path: Path, *, content_type: str) -> None:
        raise DiskFull(f"no room for {key}, {content_type}")


def test_a_full_store_fails_no_run(tmp_path: Path) -> None:
    previews = PreviewFrames(_FullBlobs(), tmp_path)  # type: ignore[arg-type]

    previews.shower(make_spec(), "t2v_0/1")(3, PICTURE)
    previews.settle()
