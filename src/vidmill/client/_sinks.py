"""Where downloaded bytes go: a file that appears only when whole, or memory."""

import hashlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self


class Sink(Protocol):
    """Takes bytes in order and can start anew."""

    size: int

    def write(self, piece: bytes) -> None: ...
    def restart(self) -> None: ...
    def sha256(self) -> str: ...


class MemorySink:
    def __init__(self) -> None:
        self.restart()

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    def write(self, piece: bytes) -> None:
        self._data += piece
        self.size += len(piece)

    def restart(self) -> None:
        self._data = bytearray()
        self.size = 0

    def sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()


class FileSink:
    """Writes beside *path* and renames on success, so nobody ever sees half a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self.size = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("xb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        file = self._open_file()
        if kind is None:
            file.flush()
            os.fsync(file.fileno())
        file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        self._open_file().write(piece)
        self._hash.update(piece)
        self.size += len(piece)

    def restart(self) -> None:
        file = self._open_file()
        file.seek(0)
        file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("use FileSink in a with statement")
        return self._file
