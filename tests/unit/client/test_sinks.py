"""Files appear only when whole."""

import hashlib
from pathlib import Path

import pytest

from vidmill.client._sinks import FileSink, MemorySink, Sink


def test_file_appears_at_the_end_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clip.mp4"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with FileSink(path) as sink:
        sink.write(b"ab")
        sink.write(b"c")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"abc"
    assert (sink.size, sink.sha256()) == (3, hashlib.sha256(b"abc").hexdigest())
    assert list(path.parent.iterdir()) == [path]


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"

    def fail_midway() -> None:
        with FileSink(path) as sink:
            sink.write(b"ab")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_restart_forgets_what_was_written(tmp_path: Path, kind: str) -> None:
    file, memory = FileSink(tmp_path / "x"), MemorySink()
    with file:
        sink: Sink = file if kind == "file" else memory
        sink.write(b"wrong")
        sink.restart()
        sink.write(b"right")
        assert (sink.size, sink.sha256()) == (5, hashlib.sha256(b"right").hexdigest())
