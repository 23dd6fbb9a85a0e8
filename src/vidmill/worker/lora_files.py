"""LoRA files on this machine's disk: fetched once, checked by hash, the oldest dropped."""

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidmill.domain.errors import LoraInvalid, NotFound, StorageFailed, storage_error
from vidmill.domain.lora import LoraUse, blob_key
from vidmill.domain.ports import BlobStore, LoraFiles

_IN_USE_S = 600.0
"""What somebody asked for so lately another worker of this machine may be about to open."""


@dataclass(frozen=True, kw_only=True)
class LoraShelf:
    """The folder, which the workers of a machine share.

    Attributes:
        capacity_bytes: Beyond, the files used longest ago are deleted.
        clock: Unix seconds, as files' times are.
    """

    blobs: BlobStore
    folder: Path
    capacity_bytes: int
    clock: Callable[[], float] = time.time

    def get(self, use: LoraUse, check: Callable[[], None]) -> LoraFiles:
        """Return the two files of *use*; *check* is called between chunks, and may raise.

        Raises:
            LoraInvalid: The store has no such file any more.
            StorageFailed: It cannot be read, or what came has another hash.
        """
        files = LoraFiles(high=self._file(use.high, check), low=self._file(use.low, check))
        self._tidy(keep={files.high, files.low})
        return files

    def _file(self, sha256: str, check: Callable[[], None]) -> Path:
        path = self.folder / f"{sha256}.safetensors"
        try:
            os.utime(path, (self.clock(), self.clock()))
        except FileNotFoundError:
            self._fetch(sha256, path, check)
        return path

    def _fetch(self, sha256: str, path: Path, check: Callable[[], None]) -> None:
        part = self.folder / f".{sha256}.{secrets.token_hex(4)}.part"
        digest = hashlib.sha256()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("xb") as target:
                for chunk in self.blobs.read(blob_key(sha256)):
                    check()
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != sha256:
                raise StorageFailed(
                    f"the LoRA file {sha256[:16]} came with the hash {digest.hexdigest()[:16]}; if"
                    " it happens again, upload it anew"
                )
            os.utime(part, (self.clock(), self.clock()))
            part.replace(path)
        except NotFound as error:
            raise LoraInvalid(
                f"the LoRA file {sha256[:16]} was deleted; submit the task anew without it"
            ) from error
        except OSError as error:
            raise storage_error(error, f"fetching the LoRA file {sha256[:16]}") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _tidy(self, keep: set[Path]) -> None:
        """Delete what is too much; another worker may do so at the same time."""
        held: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):
                status = path.stat()
                held.append((status.st_mtime, status.st_size, path))
        size_bytes = sum(size for _, size, _ in held)
        for used_at, size, path in sorted(held):
            if size_bytes <= self.capacity_bytes or self.clock() - used_at < _IN_USE_S:
                return
            if path not in keep:
                with suppress(OSError):
                    path.unlink()
                size_bytes -= size
