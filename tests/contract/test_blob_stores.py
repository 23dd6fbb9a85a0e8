"""What every blob store keeps, over the table; clouds need a server and credentials: see STORES."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vidmill.domain.errors import NotFound, StorageFailed
from vidmill.domain.ports import BlobStore
from vidmill.storage import STORES, open_blobs

LOCAL: dict[str, Callable[[Path], str]] = {
    "file": lambda folder: (folder / "a folder").as_uri(),
    "memory": lambda _folder: "memory://",
}
"""Stores that need no server. `VIDMILL_TEST_STORES` may add URLs of others, separated by spaces."""

KEY = "t2v_1/1/clip.mp4"
CONTENT = bytes(i * 7 % 256 for i in range(1_000_003))
BAD_KEYS = [
    "",
    "/etc/passwd",
    "..",
    "a/../b",
    "a//b",
    "a/",
    ".hidden",
    "a/.part",
    "a\\b",
    "a\0b",
    "ü",
]


@pytest.fixture(params=[*LOCAL, *os.environ.get("VIDMILL_TEST_STORES", "").split()])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    url = LOCAL[request.param](tmp_path) if request.param in LOCAL else request.param
    return open_blobs(url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def put(blobs: BlobStore, key: str, file: Path) -> None:
    blobs.put_file(key, file, content_type="video/mp4")


def test_what_was_put_is_read_back(blobs: BlobStore, file: Path) -> None:
    put(blobs, KEY, file)
    assert b"".join(blobs.read(KEY)) == CONTENT
    info = blobs.head(KEY)
    assert info is not None
    assert info.size_bytes == len(CONTENT)
    assert info.etag
    assert '"' not in info.etag


def test_the_source_file_stays(blobs: BlobStore, file: Path) -> None:
    put(blobs, KEY, file)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (0, 10), (5, 5), (999_990, None), (17, 700_001), (1_000_002, None), (10, 10**9)],
)
def test_ranges_are_those_of_slices(
    blobs: BlobStore, file: Path, start: int, end: int | None
) -> None:
    put(blobs, KEY, file)
    assert b"".join(blobs.read(KEY, start=start, end=end)) == CONTENT[start:end]


def test_reading_comes_in_small_pieces(blobs: BlobStore, file: Path) -> None:
    put(blobs, KEY, file)
    assert max(len(chunk) for chunk in blobs.read(KEY)) <= 256 * 1024


def test_what_is_not_there_is_said(blobs: BlobStore) -> None:
    assert blobs.head(KEY) is None
    with pytest.raises(NotFound):
        list(blobs.read(KEY))
    assert blobs.delete_prefix("t2v_1") == 0


def test_a_second_put_of_a_retried_run_replaces_the_first(blobs: BlobStore, file: Path) -> None:
    put(blobs, KEY, file)
    file.write_bytes(b"again")
    put(blobs, KEY, file)
    assert b"".join(blobs.read(KEY)) == b"again"


def test_an_empty_file_is_a_file(blobs: BlobStore, file: Path) -> None:
    file.write_bytes(b"")
    put(blobs, KEY, file)
    info = blobs.head(KEY)
    assert info is not None
    assert info.size_bytes == 0


def test_deleting_a_prefix_takes_whole_segments_only(blobs: BlobStore, file: Path) -> None:
    for key in ("t2v_1/1/clip.mp4", "t2v_1/1/poster.jpg", "t2v_1/10/clip.mp4", "t2v_2/1/clip.mp4"):
        put(blobs, key, file)
    assert blobs.delete_prefix("t2v_1/1") == 2
    assert blobs.head("t2v_1/1/clip.mp4") is None
    assert blobs.head("t2v_1/10/clip.mp4") is not None
    assert blobs.delete_prefix("t2v_1") == 1
    assert blobs.head("t2v_2/1/clip.mp4") is not None


@pytest.mark.parametrize("key", BAD_KEYS)
def test_no_key_leads_out_of_the_store(blobs: BlobStore, file: Path, key: str) -> None:
    with pytest.raises(NotFound):
        put(blobs, key, file)
    with pytest.raises(NotFound):
        blobs.head(key)
    with pytest.raises(NotFound):
        list(blobs.read(key))
    with pytest.raises(NotFound):
        blobs.delete_prefix(key)
    with pytest.raises(NotFound):
        blobs.signed_url(key, expires_in_s=60)


def test_a_source_that_vanished_is_a_storage_failure(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        put(blobs, KEY, tmp_path / "gone")
    assert blobs.head(KEY) is None


def test_the_table_has_no_store_that_is_never_tried() -> None:
    clouds = {"s3", "oss", "gs", "az"}
    assert set(LOCAL) | clouds == set(STORES)
