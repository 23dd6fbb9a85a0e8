"""What only the local disk does."""

from pathlib import Path

import pytest

from vidmill.domain.errors import StorageFailed
from vidmill.storage import open_blobs


def test_a_delete_that_leaves_something_behind_is_not_called_done(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path.as_uri())
    (tmp_path / "t2v_1").write_bytes(b"not a folder")

    with pytest.raises(StorageFailed, match="t2v_1"):
        blobs.delete_prefix("t2v_1")
