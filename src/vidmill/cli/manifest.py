"""`manifest.json`: what became of each row of a campaign, and where to go on."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidmill.cli.campaign import Row
from vidmill.client import Result, Task, VidmillError

FILE_NAME = "manifest.json"
VERSION = 1


@dataclass(kw_only=True)
class Entry:
    """One row. Times and sizes are facts of the server and of the file, not wishes.

    Attributes:
        request_hash: SHA-256 of the request: says whether an edited row is still the same clip.
        seconds: From the first start to the end on the server, the queue not counted.
        status: `not_sent`, a task's status, or `error` if the clip could not be fetched.
    """

    line: int
    name: str
    prompt: str
    request_hash: str
    task_id: str | None = None
    status: str = "not_sent"
    file: str | None = None
    poster: str | None = None
    size: str | None = None
    size_bytes: int | None = None
    duration: float | None = None
    seconds: float | None = None
    sha256: str | None = None
    seed: int | None = None
    error: str | None = None

    @property
    def is_done(self) -> bool:
        return self.status == "completed" and self.file is not None

    def follow(self, task: Task) -> None:
        self.task_id, self.status = task.task_id, task.status

    def complete(self, task: Task, result: Result, *, file: Path, poster: Path | None) -> None:
        """Record the delivered clip. *file* and *poster* lie in the manifest's folder."""
        self.follow(task)
        self.file, self.poster = file.name, poster.name if poster else None
        self.size = f"{result.width}x{result.height}"
        self.size_bytes = file.stat().st_size
        self.duration, self.sha256, self.seed = result.duration, result.sha256, result.seed
        self.seconds = task.running_s
        self.error = None

    def fail(self, error: VidmillError | OSError, task: Task | None) -> None:
        if task:
            self.follow(task)
        is_over = self.status in {"failed", "cancelled"}
        self.status = self.status if is_over else "error"
        self.error = str(error)


@dataclass(kw_only=True)
class Manifest:
    """All rows of one campaign in *folder*."""

    folder: Path
    campaign: str
    server: str
    entries: list[Entry]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(entry.status for entry in self.entries))

    @property
    def is_complete(self) -> bool:
        return all(entry.is_done for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "campaign": self.campaign,
            "server": self.server,
            "counts": self.counts,
            "rows": [asdict(entry) for entry in self.entries],
        }

    def write(self) -> None:
        """Replace the file in one step, so that a crash leaves the old one or the new one."""
        path = self.folder / FILE_NAME
        part = path.with_name(f".{FILE_NAME}.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(self.to_json(), file, ensure_ascii=False, indent=2)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def open_manifest(folder: Path, rows: list[Row], *, campaign: str, server: str) -> Manifest:
    """Return a manifest for *rows*; rows that did not change keep what an earlier run learnt.

    Raises:
        ValueError: There is a manifest that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {(entry.name, entry.request_hash): entry for entry in _known_entries(folder)}
    entries = []
    for row in rows:
        fresh = Entry(line=row.line, name=row.name, prompt=row.clip.prompt, request_hash=_hash(row))
        entry = known.get((fresh.name, fresh.request_hash), fresh)
        entry.line = row.line
        entries.append(entry if _is_usable(folder, entry) else fresh)
    return Manifest(folder=folder, campaign=campaign, server=server, entries=entries)


def _known_entries(folder: Path) -> list[Entry]:
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        return _parse(json.loads(path.read_text("utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used ({error}); choose another folder") from error


def _parse(data: Any) -> list[Entry]:
    if data["version"] != VERSION:
        raise ValueError(f"its version is {data['version']}")
    return [Entry(**row) for row in data["rows"]]


def _is_usable(folder: Path, entry: Entry) -> bool:
    """A finished row counts while its file is whole; a failed one is made anew."""
    if entry.is_done:
        path = folder / str(entry.file)
        return path.is_file() and _sha256(path) == entry.sha256
    return entry.status in {"queued", "processing", "error"} and entry.task_id is not None


def _hash(row: Row) -> str:
    text = json.dumps(row.clip.to_wire(), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
