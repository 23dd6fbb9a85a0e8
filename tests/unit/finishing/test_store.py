import hashlib
from pathlib import Path

import pytest

from tests.builders import make_spec
from tests.clips import moving_clip
from tests.watches import RecordingWatch
from vidmill.domain.errors import DiskFull
from vidmill.finishing import Encoding, FinishedClip, finish_clip, store_clip
from vidmill.storage import open_blobs
from vidmill.storage.local import LocalBlobs


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> FinishedClip:
    return finish_clip(
        moving_clip(),
        make_spec(),
        tmp_path_factory.mktemp("clip"),
        encoding=Encoding(preset="ultrafast"),
        watch=RecordingWatch(),
    )


def test_stored_bytes_have_the_checksums_of_their_assets(
    tmp_path: Path, clip: FinishedClip
) -> None:
    blobs = open_blobs(tmp_path.as_uri())
    assets = store_clip(blobs, "t2v_1/2", clip)
    assert {name: asset.key for name, asset in assets.items()} == {
        "video": "t2v_1/2/clip.mp4",
        "poster": "t2v_1/2/poster.jpg",
        "preview": "t2v_1/2/preview.webp",
    }
    for asset in assets.values():
        content = b"".join(blobs.read(asset.key))
        assert asset.size_bytes == len(content)
        assert asset.sha256 == hashlib.sha256(content).hexdigest()
    assert (assets["video"].width_px, assets["video"].height_px) == (832, 480)


class FullAfterOne(LocalBlobs):
    """A store whose disk is full after the first file."""

    puts = 0

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        self.puts += 1
        if self.puts > 1:
            raise DiskFull("no room left")
        super().put_file(key, path, content_type=content_type)


def test_when_one_file_fails_none_is_left(tmp_path: Path, clip: FinishedClip) -> None:
    blobs = FullAfterOne(tmp_path.as_uri())
    with pytest.raises(DiskFull):
        store_clip(blobs, "t2v_1/1", clip)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
