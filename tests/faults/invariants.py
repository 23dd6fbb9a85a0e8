"""`invariants.sql` run on a database; and I7 and I8 where rows alone do not tell."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from vidmill.domain.clip import ClipResult
from vidmill.store.session import Database

SCRIPT = Path(__file__).with_name("invariants.sql")


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One row, or file, that should not be."""

    rule: str
    found: tuple[Any, ...]


def queries() -> Iterator[tuple[str, str]]:
    """Yield each rule in words and its query."""
    for statement in SCRIPT.read_text().split(";"):
        lines = statement.strip().splitlines()
        rules = [line.removeprefix("-- ") for line in lines if line.startswith("-- I")]
        if rules:
            yield rules[0], "\n".join(line for line in lines if not line.startswith("--"))


def breaches(db: Database, *, patience_s: float) -> list[Breach]:
    """Return what breaks the invariants; empty = none does."""
    given = {"now": db.now(), "patience_s": patience_s}

    def run(rule: str, query: str) -> list[Breach]:
        asked = {name: value for name, value in given.items() if f":{name}" in query}
        rows = db.read(lambda conn: conn.execute(text(query), asked).all())
        return [Breach(rule=rule, found=tuple(row)) for row in rows[:5]]

    return [breach for rule, query in queries() for breach in run(rule, query)]


def bad_files(db: Database, files: Path) -> list[Breach]:
    """Return the published files that are not what their run wrote: I7, on the disk."""
    query = text("SELECT public_id, attempt, result FROM jobs WHERE state = 'succeeded'")
    rows = db.read(lambda conn: conn.execute(query).all())
    rule = "I7 a published clip lies in its run's own folder and is what that run wrote"
    return [
        Breach(rule=rule, found=(row.public_id, row.attempt))
        for row in rows
        if not _is_whole(row, files)
    ]


def _is_whole(row: Any, files: Path) -> bool:
    told = json.loads(row.result) if isinstance(row.result, str) else row.result  # SQLite: text
    result = ClipResult.from_json(told)
    for asset in result.assets.values():
        path = files / asset.key
        if not asset.key.startswith(f"{row.public_id}/{row.attempt}/") or not path.is_file():
            return False
        if hashlib.sha256(path.read_bytes()).hexdigest() != asset.sha256:
            return False
    return True
