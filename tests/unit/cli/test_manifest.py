"""The manifest: what a second run keeps, follows or makes anew."""

import hashlib
import json
from pathlib import Path

import pytest

from vidmill.cli.campaign import Row
from vidmill.cli.manifest import Entry, Manifest, open_manifest
from vidmill.client import ClipRequest, Result, Task, VidmillError


def make_row(name: str = "ball", prompt: str = "a red ball", line: int = 2) -> Row:
    return Row(line=line, name=name, clip=ClipRequest(prompt=prompt))


def reopen(folder: Path, *rows: Row) -> Manifest:
    return open_manifest(folder, list(rows), campaign="c.csv", server="http://x")


def complete(entry: Entry, folder: Path, data: bytes = b"mp4") -> None:
    path = folder / f"{entry.name}.mp4"
    path.write_bytes(data)
    task = Task(task_id="t2v_1", status="completed", running_s=4.5)
    sha256 = hashlib.sha256(data).hexdigest()
    result = Result(width=832, height=480, duration=3.0, sha256=sha256, seed=7)
    entry.complete(task, result, file=path, poster=None)


def test_finished_row_is_kept_and_says_everything(tmp_path: Path) -> None:
    manifest = reopen(tmp_path, make_row())
    complete(manifest.entries[0], tmp_path)
    manifest.write()
    again = reopen(tmp_path, make_row(line=9))
    entry = again.entries[0]
    assert (again.is_complete, again.counts, entry.line) == (True, {"completed": 1}, 9)
    shown = json.loads((tmp_path / "manifest.json").read_text())["rows"][0]
    expected = {"size": "832x480", "seconds": 4.5, "seed": 7, "file": "ball.mp4", "error": None}
    assert {name: shown[name] for name in expected} == expected


def test_edited_row_is_made_anew(tmp_path: Path) -> None:
    manifest = reopen(tmp_path, make_row())
    complete(manifest.entries[0], tmp_path)
    manifest.write()
    again = reopen(tmp_path, make_row(prompt="a blue ball"))
    assert (again.entries[0].status, again.entries[0].task_id) == ("not_sent", None)


@pytest.mark.parametrize("damage", [b"", b"mp3"])
def test_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    manifest = reopen(tmp_path, make_row())
    complete(manifest.entries[0], tmp_path)
    manifest.write()
    (tmp_path / "ball.mp4").write_bytes(damage)
    assert not reopen(tmp_path, make_row()).entries[0].is_done


@pytest.mark.parametrize(
    ("status", "is_followed"),
    [("queued", True), ("processing", True), ("failed", False), ("cancelled", False)],
)
def test_running_task_is_followed_and_a_failed_one_is_not(
    tmp_path: Path, status: str, *, is_followed: bool
) -> None:
    manifest = reopen(tmp_path, make_row())
    manifest.entries[0].follow(Task(task_id="t2v_1", status=status))
    manifest.write()
    task_id = reopen(tmp_path, make_row()).entries[0].task_id
    assert task_id == ("t2v_1" if is_followed else None)


def test_clip_that_could_not_be_saved_is_fetched_again_not_made_again(tmp_path: Path) -> None:
    manifest = reopen(tmp_path, make_row())
    task = Task(task_id="t2v_1", status="completed")
    manifest.entries[0].fail(VidmillError("disk full"), task)
    manifest.write()
    entry = reopen(tmp_path, make_row()).entries[0]
    assert (entry.task_id, entry.status, entry.is_done) == ("t2v_1", "error", False)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99, "rows": []}', '{"version": 1}'])
def test_unreadable_manifest_is_never_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="choose another folder"):
        reopen(tmp_path, make_row())
    assert path.read_text() == text
