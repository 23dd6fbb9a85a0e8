"""A campaign file: one clip per row, every mistake found before anything is sent."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmill.client import ClipRequest
from vidmill.domain.lora import read_choice

ROWS_MAX = 10_000
"""As many as one campaign may have (SPEC bulk)."""

SLUG_MAX_CHARS = 40
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_FILE_NAME = re.compile(r"[^\\/:*?\"<>|\x00-\x1f]{1,120}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip. `line` is the first physical line of the record, as an editor shows it."""

    line: int
    name: str
    clip: ClipRequest


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake. `column` is empty where the whole row is meant; `line` 1 is the header."""

    line: int
    column: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}"
        return (
            f"{where}, {self.column}: {self.message}" if self.column else f"{where}: {self.message}"
        )


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What a file says. With problems, nothing of it should be sent."""

    rows: list[Row]
    problems: list[Problem]


def read_campaign(path: Path) -> Campaign:
    """Read the CSV at *path* (UTF-8, with or without BOM; comma, semicolon or tab).

    Raises:
        OSError: It cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8; save the sheet as 'CSV UTF-8'"
        return Campaign(rows=[], problems=[Problem(line=1, column="", message=message)])
    return parse_campaign(text)


def parse_campaign(text: str) -> Campaign:
    """Return the rows of *text* and everything that is wrong with them."""
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records = _records(reader)
    try:
        header_line, header = next(records, (1, []))
        names = [cell.strip().lower() for cell in header]
        problems = list(_header_problems(header_line, names))
        if problems:
            return Campaign(rows=[], problems=problems)
        return _parse_rows(records, names)
    except csv.Error as error:
        message = f"the file is not CSV here: {error}"
        return Campaign(
            rows=[], problems=[Problem(line=reader.line_num, column="", message=message)]
        )


def _records(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with its first line; the reader knows only the last."""
    last_line = 0
    for cells in reader:
        first, last_line = last_line + 1, reader.line_num
        if any(cell.strip() for cell in cells):
            yield first, cells


def _header_problems(line: int, names: list[str]) -> Iterator[Problem]:
    if "prompt" not in names:
        message = f"there is no column 'prompt'; the columns are: {', '.join(COLUMNS)}"
        yield Problem(line=line, column="", message=message)
    for name in dict.fromkeys(names):
        if name not in COLUMNS:
            message = f"unknown column; the columns are: {', '.join(COLUMNS)}"
            yield Problem(line=line, column=name or "(blank)", message=message)
        elif names.count(name) > 1:
            yield Problem(line=line, column=name, message="the column occurs twice; remove one")


def _parse_rows(records: Iterable[tuple[int, list[str]]], names: list[str]) -> Campaign:
    rows: list[Row] = []
    problems: list[Problem] = []
    for line, cells in records:
        if len(cells) > len(names):
            extra = f"{len(cells)} cells, the header has {len(names)}; quote texts with commas"
            problems.append(Problem(line=line, column="", message=extra))
            continue
        row, wrong = _parse_row(line, dict(zip(names, cells, strict=False)), number=len(rows) + 1)
        problems += wrong
        rows += [row] if row else []
    if not rows and not problems:
        problems.append(Problem(line=1, column="", message="there are no rows below the header"))
    if len(rows) > ROWS_MAX:
        message = f"{len(rows)} rows; a campaign may have {ROWS_MAX}, split the file"
        problems.append(Problem(line=rows[ROWS_MAX].line, column="", message=message))
    return Campaign(rows=rows, problems=[*problems, *_name_problems(rows)])


def _parse_row(
    line: int, cells: Mapping[str, str], *, number: int
) -> tuple[Row | None, list[Problem]]:
    values: dict[str, Any] = {}
    problems = []
    for name, cell in cells.items():
        if not cell.strip():
            continue
        try:
            values[name] = COLUMNS[name](cell.strip())
        except ValueError as error:
            problems.append(Problem(line=line, column=name, message=str(error)))
    if not cells.get("prompt", "").strip():
        problems.append(Problem(line=line, column="prompt", message="it is blank"))
    if problems:
        return None, problems
    name = values.pop("name", None) or f"{number:03d}-{slug(values['prompt'])}"
    if "duration" in values:
        values["duration_s"] = values.pop("duration")
    return Row(line=line, name=name, clip=ClipRequest(**values)), []


def _name_problems(rows: Iterable[Row]) -> Iterator[Problem]:
    """Names become files, and some file systems ignore case."""
    first: dict[str, int] = {}
    for row in rows:
        line = first.setdefault(row.name.casefold(), row.line)
        if line != row.line:
            message = f"{row.name!r} is the name on line {line} already; names become file names"
            yield Problem(line=row.line, column="name", message=message)


def slug(text: str) -> str:
    """Return a short ASCII form of *text* for a file name; `clip` where nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    if len(words) > SLUG_MAX_CHARS:
        words = words[: SLUG_MAX_CHARS + 1].rpartition("-")[0] or words[:SLUG_MAX_CHARS]
    return words or "clip"


def _whole(cell: str) -> int:
    """Excel writes whole numbers as `7` or, from formulas, `7.0`."""
    whole = cell.removesuffix(".0")
    if not _WHOLE.fullmatch(whole):
        raise ValueError(f"{cell!r} is not a whole number")
    return int(whole)


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ValueError(f"{cell!r} is not a number")
    return number


def _yes_no(cell: str) -> bool:
    try:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
            cell.lower()
        ]
    except KeyError:
        raise ValueError(f"{cell!r} is neither yes nor no") from None


def _file_name(cell: str) -> str:
    if not _FILE_NAME.fullmatch(cell) or cell.startswith("."):
        raise ValueError(f"{cell!r} is no file name; use letters, digits, '-' and '_'")
    return cell


COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "prompt": str,
    "duration": _number,
    "resolution": str,
    "aspect_ratio": str,
    "seed": _whole,
    "frame_rate": _whole,
    "negative_prompt": str,
    "name": _file_name,
    "style": str,
    "camera": str,
    "language": str,
    "enable_physics": _yes_no,
    "lora": read_choice,
    "priority": str,
    "client_reference": str,
}
"""Columns of a campaign file, and what turns a cell into a value. Only `prompt` is required."""
