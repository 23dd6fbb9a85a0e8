import hashlib
from pathlib import Path

import pytest

from vidmill.finishing.checksums import CHUNK_BYTES, checksums


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7])
def test_checksums_are_those_of_the_whole_file(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "f").write_bytes(content)
    wanted = (hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())
    assert checksums(tmp_path / "f") == wanted
