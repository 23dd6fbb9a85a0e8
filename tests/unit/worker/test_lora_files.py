"""LoRA files on a worker's disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import FakeClock
from vidmill.domain.errors import JobCancelled, LoraInvalid, StorageFailed
from vidmill.domain.lora import LoraUse, blob_key
from vidmill.domain.ports import BlobStore
from vidmill.storage import open_blobs
from vidmill.worker.lora_files import LoraShelf


def go_on() -> None: ...


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs((tmp_path / "files").as_uri())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def put(blobs: BlobStore, tmp_path: Path, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "one").write_bytes(content)
    blobs.put_file(blob_key(sha256), tmp_path / "one", content_type="x")
    return sha256


@pytest.fixture
def use(blobs: BlobStore, tmp_path: Path) -> Callable[[int], LoraUse]:
    def make(number: int) -> LoraUse:
        high, low = (put(blobs, tmp_path, bytes([number, side]) * 500) for side in (1, 2))
        return LoraUse(name=f"n{number}", high=high, low=low, strength=1.0)

    return make


@pytest.fixture
def shelf(blobs: BlobStore, tmp_path: Path, clock: FakeClock) -> LoraShelf:
    return LoraShelf(blobs=blobs, folder=tmp_path / "loras", capacity_bytes=4000, clock=clock)


def test_a_pair_is_fetched_once(
    shelf: LoraShelf, blobs: BlobStore, use: Callable[[int], LoraUse]
) -> None:
    one = use(1)
    files = shelf.get(one, go_on)
    assert (files.high.read_bytes(), files.low.read_bytes()) == (b"\1\1" * 500, b"\1\2" * 500)
    blobs.delete_prefix("loras")
    assert shelf.get(one, go_on) == files


def test_what_was_used_longest_ago_makes_room(
    shelf: LoraShelf, clock: FakeClock, use: Callable[[int], LoraUse]
) -> None:
    uses = [use(number) for number in range(3)]
    for number in (0, 1, 0, 2):
        shelf.get(uses[number], go_on)
        clock.advance(1000.0)
    left = {path.stem for path in shelf.folder.iterdir()}
    assert left == {uses[0].high, uses[0].low, uses[2].high, uses[2].low}


def test_what_somebody_may_be_about_to_open_stays(
    shelf: LoraShelf, use: Callable[[int], LoraUse]
) -> None:
    for number in range(3):
        shelf.get(use(number), go_on)
    assert len([*shelf.folder.iterdir()]) == 6


def test_a_file_that_is_gone_from_the_store_fails_the_task_for_good(shelf: LoraShelf) -> None:
    with pytest.raises(LoraInvalid, match="was deleted"):
        shelf.get(LoraUse(name="a", high="0" * 64, low="1" * 64, strength=1.0), go_on)


def test_other_bytes_than_were_registered_are_not_used(
    shelf: LoraShelf, blobs: BlobStore, tmp_path: Path
) -> None:
    (tmp_path / "one").write_bytes(b"something else")
    blobs.put_file(blob_key("0" * 64), tmp_path / "one", content_type="x")
    with pytest.raises(StorageFailed, match="came with the hash"):
        shelf.get(LoraUse(name="a", high="0" * 64, low="0" * 64, strength=1.0), go_on)
    assert [*shelf.folder.iterdir()] == []


def test_a_cancel_while_fetching_leaves_no_part_behind(
    shelf: LoraShelf, use: Callable[[int], LoraUse]
) -> None:
    def stop() -> None:
        raise JobCancelled("now")

    with pytest.raises(JobCancelled):
        shelf.get(use(1), stop)
    assert [*shelf.folder.iterdir()] == []
