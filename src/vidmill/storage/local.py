"""Files in a folder, made to survive a power cut.

Written by hand and not through obstore, whose local store renames into place without fsync: a job
could then be recorded as succeeded while its file is empty after a crash. Here the bytes, then the
name, then the new folders are flushed before `put_file` returns.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vidmill.domain.errors import NotFound, storage_error
from vidmill.domain.ports import BlobInfo
from vidmill.storage.keys import check_key

CHUNK_BYTES = 256 * 1024


class LocalBlobs:
    """Keys are paths below one folder; content types are the database's business."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ValueError(f"{url!r} is not a file:///absolute/folder URL")
        self.root = Path(unquote(parts.path))

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:  # noqa: ARG002
        target = self.root / check_key(key)
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_durably(path, part)
            part.replace(target)
            for folder in target.relative_to(self.root).parents:
                _flush_folder(self.root / folder)
        except OSError as error:
            raise storage_error(error, f"storing {key}") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def head(self, key: str) -> BlobInfo | None:
        try:
            status = (self.root / check_key(key)).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return BlobInfo(
            size_bytes=status.st_size, etag=f"{status.st_mtime_ns:x}-{status.st_size:x}"
        )

    def read(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        try:
            file = (self.root / check_key(key)).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"no file is called {key!r}") from error
        with file:
            file.seek(start)
            left = (os.fstat(file.fileno()).st_size if end is None else end) - start
            while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk

    def delete_prefix(self, prefix: str) -> int:
        folder = self.root / check_key(prefix)
        count = sum(1 for file in folder.rglob("*") if file.is_file())
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise storage_error(error, f"deleting {prefix}") from error
        return count

    def signed_url(self, key: str, *, expires_in_s: int) -> str | None:  # noqa: ARG002
        check_key(key)
        return None  # the API serves the bytes, by a link of `storage.links`


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, CHUNK_BYTES)
        writer.flush()
        os.fsync(writer.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the names in *folder*: a rename is durable only after this (POSIX fsync rationale)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
