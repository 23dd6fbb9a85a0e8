"""A batch as one ZIP, made while it is sent: the clips as they are stored, and two manifests.

Clips are not compressed again: that costs time and gains nothing. Their sizes and checksums follow
each file and stand in the directory at the end, as is usual where a ZIP is streamed.
"""

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vidmill.domain.clip import Asset
from vidmill.domain.errors import NotFound, StorageFailed
from vidmill.domain.ports import BlobStore
from vidmill.store.batches import BatchRow

NAME_MAX_CHARS = 60
_UNSAFE = re.compile(r"[^\w.-]+")

FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
"""Cells that begin so are run as formulas when somebody opens the table (CWE-1236)."""

COLUMNS = (
    "line",
    "custom_id",
    "task_id",
    "status",
    "file",
    "sha256",
    "size_bytes",
    "seed",
    "duration",
    "prompt",
    "error_code",
    "error_message",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the archive: what the manifests say of it, and the clip if there is one."""

    row: BatchRow
    status: str


class _Sink:
    """Keeps what a ZIP writer wrote until it is fetched. Without `tell`, the writer streams."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: the writer wants to be able to ask."""

    def close(self) -> None:
        """Do nothing, likewise."""

    def fetch(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def archive(
    entries: Iterable[Entry], blobs: BlobStore, about: Callable[[], Mapping[str, Any]]
) -> Iterator[bytes]:
    """Yield the ZIP in pieces.

    Args:
        entries: The rows, in their order.
        blobs: Where the clips are.
        about: Returns what the manifest says of the batch as a whole, asked at the end.
    """
    sink = _Sink()
    lines: list[dict[str, Any]] = []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as packed:
        for entry in entries:
            line = _line(entry)
            yield from _packed(entry, line, blobs, packed, sink)
            lines.append(line)
        manifest = {**about(), "rows": lines}
        packed.writestr("manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
        packed.writestr("manifest.csv", table(lines))
    yield sink.fetch()


def table(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return *lines* as CSV that spreadsheets open as it is meant: marked UTF-8, no formulas."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(line[name]) for name in COLUMNS] for line in lines)
    return text.getvalue().encode("utf-8-sig", "replace")


def _packed(
    entry: Entry, line: dict[str, Any], blobs: BlobStore, packed: zipfile.ZipFile, sink: _Sink
) -> Iterator[bytes]:
    """Pack the clip of *entry*, and note in *line* what was packed."""
    asset = _video(entry.row)
    if asset is None:
        return
    try:
        pieces = blobs.read(asset.key)
        first = next(pieces, b"")
    except (NotFound, StorageFailed) as error:
        line |= {"status": "missing", "error_message": str(error)}
        return
    name, digest, size = _file_name(entry.row), hashlib.sha256(), 0
    with packed.open(zipfile.ZipInfo(name, _date_of(entry.row)), "w") as file:
        piece = first
        while piece:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
            yield sink.fetch()
            piece = next(pieces, b"")
    is_whole = digest.hexdigest() == asset.sha256
    line |= {"file": name, "sha256": digest.hexdigest(), "size_bytes": size}
    if not is_whole:
        line |= {"status": "damaged", "error_message": f"its checksum was {asset.sha256}"}


def _line(entry: Entry) -> dict[str, Any]:
    row, job = entry.row, entry.row.job
    problem = row.problems[0] if row.problems else {}
    error = (job.error_code, job.error_message) if job else (None, None)
    return {
        **dict.fromkeys(COLUMNS),
        "line": row.line,
        "custom_id": row.custom_id,
        "task_id": job.public_id if job else None,
        "status": entry.status,
        "seed": job.spec.seed if job else None,
        "duration": job.spec.duration_s if job else None,
        "prompt": job.request.get("prompt") if job else None,
        "error_code": error[0] or problem.get("code"),
        "error_message": error[1] or problem.get("message"),
    }


def _video(row: BatchRow) -> Asset | None:
    return row.job.result.assets.get("video") if row.job and row.job.result else None


def _file_name(row: BatchRow) -> str:
    """Return a name that every file system takes; the line makes it the only one of its kind."""
    said = _UNSAFE.sub("-", row.custom_id or "").strip("-.")[:NAME_MAX_CHARS]
    return f"clips/{row.line:05d}{'-' if said else ''}{said}.mp4"


def _date_of(row: BatchRow) -> tuple[int, int, int, int, int, int]:
    seconds = (row.job.finished_at if row.job else None) or 0.0
    moment = datetime.fromtimestamp(max(seconds, 315_532_800.0), UTC)  # a ZIP knows none before
    return (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value
