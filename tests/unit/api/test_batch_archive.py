"""The ZIP of a batch: made in pieces, whole, and harmless where it is opened."""

import csv
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_result, make_spec
from vidmill.api.batch_archive import COLUMNS, Entry, archive, table
from vidmill.domain.batch import RowState
from vidmill.domain.job import Job, JobState, Lane
from vidmill.storage.local import LocalBlobs
from vidmill.store.batches import BatchRow

CLIP = b"an mp4" * 100_000


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(f"file://{tmp_path}/blobs")


def put(blobs: LocalBlobs, folder: Path, key: str) -> None:
    source = folder / "clip"
    source.write_bytes(CLIP)
    blobs.put_file(key, source, content_type="video/mp4")


def make_entry(line: int, *, key: str | None, custom_id: str | None = None, **job: Any) -> Entry:
    video = replace(
        make_result().assets["video"], key=key or "", sha256=hashlib.sha256(CLIP).hexdigest()
    )
    made = Job(
        id=line,
        public_id=f"t2v_{line}",
        tenant_id=1,
        pool="main",
        lane=Lane.BATCH,
        state=JobState.SUCCEEDED,
        attempt=1,
        max_attempts=4,
        spec=make_spec(),
        request={"prompt": "=1+1", **job},
        est_cost_s=1.0,
        submitted_at=0.0,
        finished_at=1_800_000_001.0,
        result=make_result(assets={"video": video}) if key else None,
    )
    row = BatchRow(
        batch_id=1,
        number=line,
        line=line,
        custom_id=custom_id,
        state=RowState.SUCCEEDED,
        wanted=None,
        problems=(),
        price_credits=30,
        job=made,
    )
    return Entry(row=row, status="completed")


def opened(pieces: list[bytes]) -> zipfile.ZipFile:
    packed = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert packed.testzip() is None
    return packed


def test_clips_are_packed_as_they_are_beside_two_manifests(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    put(blobs, tmp_path, "a/1/clip.mp4")
    entries = [make_entry(2, key="a/1/clip.mp4", custom_id="赤い/ball: 1"), make_entry(3, key=None)]

    packed = opened(list(archive(entries, blobs, lambda: {"batch_id": "bat_1"})))

    assert packed.namelist() == ["clips/00002-赤い-ball-1.mp4", "manifest.json", "manifest.csv"]
    clip = packed.getinfo("clips/00002-赤い-ball-1.mp4")
    assert (clip.compress_type, clip.file_size) == (zipfile.ZIP_STORED, len(CLIP))
    assert packed.read(clip) == CLIP
    manifest = json.loads(packed.read("manifest.json"))
    assert manifest["batch_id"] == "bat_1"
    assert [row["file"] for row in manifest["rows"]] == ["clips/00002-赤い-ball-1.mp4", None]
    assert manifest["rows"][0]["sha256"] == hashlib.sha256(CLIP).hexdigest()


def test_a_clip_goes_out_while_the_next_is_not_read_yet(blobs: LocalBlobs, tmp_path: Path) -> None:
    put(blobs, tmp_path, "a/1/clip.mp4")
    asked = []

    def entries() -> Any:
        for line in (1, 2):
            asked.append(line)
            yield make_entry(line, key="a/1/clip.mp4")

    pieces = archive(entries(), blobs, dict)
    first = next(pieces)

    assert (asked, len(first) < len(CLIP)) == ([1], True)


def test_a_file_that_is_gone_is_told_in_the_manifest(blobs: LocalBlobs) -> None:
    packed = opened(list(archive([make_entry(1, key="gone/1/clip.mp4")], blobs, dict)))

    (row,) = json.loads(packed.read("manifest.json"))["rows"]
    assert (row["status"], row["file"]) == ("missing", None)


def test_a_file_that_changed_is_packed_and_told(blobs: LocalBlobs, tmp_path: Path) -> None:
    put(blobs, tmp_path, "a/1/clip.mp4")
    (tmp_path / "blobs/a/1/clip.mp4").write_bytes(b"other")

    packed = opened(list(archive([make_entry(1, key="a/1/clip.mp4")], blobs, dict)))

    (row,) = json.loads(packed.read("manifest.json"))["rows"]
    assert (row["status"], row["size_bytes"]) == ("damaged", 5)
    assert packed.read(row["file"]) == b"other"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_no_cell_is_a_formula_where_the_table_is_opened(start: str) -> None:
    line = {**dict.fromkeys(COLUMNS), "line": 1, "prompt": f"{start}cmd|' /C calc'!A0"}

    text = table([line]).decode("utf-8-sig")

    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["prompt"] == f"'{start}cmd|' /C calc'!A0"


def test_the_table_says_that_it_is_utf8() -> None:
    assert table([]).startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize("custom_id", ["../../etc/passwd", "a" * 300, "..", "CON", "a\x00b", "-"])
def test_names_stay_in_the_folder_and_fit_any_file_system(
    blobs: LocalBlobs, tmp_path: Path, custom_id: str
) -> None:
    put(blobs, tmp_path, "a/1/clip.mp4")
    entry = make_entry(7, key="a/1/clip.mp4", custom_id=custom_id)

    name = opened(list(archive([entry], blobs, dict))).namelist()[0]

    assert name.startswith("clips/00007")
    assert len(name) <= 80
    assert not {"..", "/", "\\", "\x00", ":"} & set(name.removeprefix("clips/"))
    assert ".." not in name
