"""The checksums callers compare a download with."""

import hashlib
from pathlib import Path

CHUNK_BYTES = 1 << 20


def checksums(path: Path) -> tuple[str, str]:
    """Return MD5 and SHA-256 (hex) of the file at *path*, read once."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    return md5.hexdigest(), sha256.hexdigest()
