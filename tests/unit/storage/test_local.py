import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vidmill.domain.errors import NotFound, StorageFailed
from vidmill.storage.local import LocalBlobs

FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from vidmill.domain.errors import DiskFull
    from vidmill.storage.local import LocalBlobs

    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    try:
        blobs = LocalBlobs(sys.argv[1])
        blobs.put_file("t/1/clip.mp4", Path(sys.argv[2]), content_type="video/mp4")
    except DiskFull as error:
        print(error)
"""
"""Runs in a process of its own, as the limit stays. A write beyond it fails as on a full disk."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(bytes(1_000_000))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "100 % files"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_is_said_and_leaves_nothing_behind(file: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), root.as_uri(), str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("no room left while storing t/1/clip.mp4")
    assert names(root) == []


def test_files_lie_in_the_folder_of_the_url(file: Path, root: Path) -> None:
    LocalBlobs(root.as_uri()).put_file("t/1/clip.mp4", file, content_type="video/mp4")
    assert (root / "t" / "1" / "clip.mp4").read_bytes() == file.read_bytes()
    assert names(root) == ["clip.mp4"]


def test_what_a_killed_put_left_goes_with_its_attempt(file: Path, root: Path) -> None:
    blobs = LocalBlobs(root.as_uri())
    blobs.put_file("t/1/clip.mp4", file, content_type="video/mp4")
    (root / "t" / "1" / ".poster.jpg.0123.part").write_bytes(b"half")
    blobs.delete_prefix("t/1")
    assert not (root / "t" / "1").exists()


def test_a_key_below_a_file_is_a_storage_failure(file: Path, root: Path) -> None:
    blobs = LocalBlobs(root.as_uri())
    blobs.put_file("t/1", file, content_type="video/mp4")
    with pytest.raises(StorageFailed):
        blobs.put_file("t/1/clip.mp4", file, content_type="video/mp4")
    assert blobs.head("t/1/clip.mp4") is None


def test_a_folder_is_no_file(file: Path, root: Path) -> None:
    blobs = LocalBlobs(root.as_uri())
    blobs.put_file("t/1/clip.mp4", file, content_type="video/mp4")
    assert blobs.head("t/1") is None
    with pytest.raises(NotFound):
        list(blobs.read("t/1"))
    with pytest.raises(NotFound):
        list(blobs.read("t/1/clip.mp4/more"))


def test_the_api_serves_local_files(root: Path) -> None:
    assert LocalBlobs(root.as_uri()).signed_url("t/1/clip.mp4", expires_in_s=60) is None
