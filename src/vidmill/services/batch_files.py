"""From the bytes of a CSV or JSON Lines file to rows, each with the line its writer sees it on.

What spoils the whole file is an error; what spoils one row stays with that row. Cells become what
the same field is in JSON; whether a value may be asked for is not decided here.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from charset_normalizer import from_bytes

from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.lora import read_choice

CUSTOM_ID = "custom_id"
METADATA_PREFIX = "metadata."
SNIFFED_BYTES = 256 * 1024
"""An encoding shows itself in that much, and looking at 16 MiB takes seconds."""

GUESSED = ("cp932", "gb18030", "big5hkscs", "euc_jp", "cp949", "cp1252", "cp1251")
"""What spreadsheets save as besides Unicode. Tried in a fixed order these are told apart wrongly:
Japanese of cp932 is valid gb18030, and nonsense."""

OFFERED = ("utf-8", "utf-16", *GUESSED, "cp1250")

_BOMS: Mapping[bytes, str] = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}(?:[.,][0-9]{0,18})?")
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """One row as it was written.

    Attributes:
        line: As an editor shows it: the first line of a record, which may span several; in JSON
            the number of the item. The first is 1.
        value: The item that the row stands for, unchecked.
        problems: Cells that `value` lacks because they could not be read.
    """

    line: int
    value: object
    problems: tuple[FieldProblem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """The rows of a file and how it was read.

    Attributes:
        encoding: As Python calls it; `is_guess` where neither the file nor its sender said it.
        delimiter: None where there is none.
    """

    format: str
    rows: Sequence[RawRow]
    encoding: str
    is_guess: bool = False
    delimiter: str | None = None


def read_csv(data: bytes, *, rows_max: int, encoding: str | None = None) -> RowFile:
    """Return the rows of a table with a header, separated by comma, semicolon or tab.

    Args:
        data: The file.
        rows_max: More are refused.
        encoding: None = by its mark, else UTF-8, else guessed.

    Raises:
        InvalidRequest: The file as a whole cannot be used.
    """
    found, is_guess = (_known(encoding), False) if encoding else _encoding_of(data)
    text = _decode(data, found)
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records = _records(reader)
    try:
        header_line, header = next(records, (1, []))
        columns = _columns(header, header_line)
        rows = _bounded((_row(line, cells, columns) for line, cells in records), rows_max)
    except csv.Error as error:
        message = f"it is not CSV: {error}; look for a quote that is never closed"
        raise _unusable(reader.line_num, "malformed", message) from error
    return RowFile(format="csv", rows=rows, encoding=found, is_guess=is_guess, delimiter=delimiter)


def read_json_lines(data: bytes, *, rows_max: int, decode: Callable[[str], object]) -> RowFile:
    """Return the rows of a file with a JSON object on each line; blank lines are skipped.

    Args:
        data: The file, UTF-8.
        rows_max: More are refused.
        decode: Strict JSON; raises `ValueError`.

    Raises:
        InvalidRequest: There are too many rows, or none.
    """
    lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    rows = _bounded((_item(number, line, decode) for number, line in numbered), rows_max)
    return RowFile(format="jsonl", rows=rows, encoding="utf-8")


def read_items(items: Sequence[object], *, rows_max: int) -> RowFile:
    """Return the rows of a JSON array.

    Raises:
        InvalidRequest: There are too many rows, or none.
    """
    rows = _bounded((RawRow(line=n, value=item) for n, item in enumerate(items, 1)), rows_max)
    return RowFile(format="json", rows=rows, encoding="utf-8")


def _bounded(rows: Iterator[RawRow], rows_max: int) -> list[RawRow]:
    found: list[RawRow] = []
    for row in rows:
        if len(found) == rows_max:
            message = f"there are more than {rows_max} rows; split the file"
            raise _unusable(row.line, "max_items", message, limit=rows_max)
        found.append(row)
    if not found:
        raise _unusable(1, "blank", "there is no row; add some")
    return found


def _encoding_of(data: bytes) -> tuple[str, bool]:
    """Return the encoding, and whether it is a guess."""
    for mark, name in _BOMS.items():
        if data.startswith(mark):
            return name, False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        # Cut where a line ends: no encoding listed has a line feed inside a character.
        sample = data[:SNIFFED_BYTES].rpartition(b"\n")[0] or data[:SNIFFED_BYTES]
        best = from_bytes(sample, cp_isolation=list(GUESSED)).best()
        return (best.encoding if best else "utf-8"), True
    return "utf-8", False


def _known(encoding: str) -> str:
    """Return the encoding in our spelling; others there are could be slow, or no text at all."""
    try:
        name = codecs.lookup(encoding[:40]).name.removesuffix("-sig")
    except (LookupError, ValueError):
        name = ""
    name = {"shift_jis": "cp932", "gbk": "gb18030", "gb2312": "gb18030"}.get(name, name)
    if name not in OFFERED:
        message = f"{encoding[:40]!r} is not on offer; choose one of: {', '.join(OFFERED)}"
        raise InvalidRequest([_problem("encoding", "not_offered", message)])
    return name


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} is not {encoding}; save the sheet as 'CSV UTF-8'"
        raise _unusable(line, "encoding", message) from error


def _records(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with its first line; the reader knows only the last."""
    last_line = 0
    for cells in reader:
        first, last_line = last_line + 1, reader.line_num
        if any(cell.strip() for cell in cells):
            yield first, cells


def _columns(header: Sequence[str], line: int) -> list[str | None]:
    """Return the field of each column; None for those that are not looked at.

    Raises:
        InvalidRequest: It names every column that is unknown, or there twice, or missing.
    """
    names = [cell.strip() for cell in header]
    fields = [_field_of(name) for name in names]
    wrong = [
        _column_problem(line, name, "unknown_field", _did_you_mean(name))
        for name, field in zip(names, fields, strict=True)
        if field == ""
    ]
    known = [field for field in fields if field]
    twice = [field for field in dict.fromkeys(known) if known.count(field) > 1]
    wrong += [_column_problem(line, name, "duplicate", "it occurs twice") for name in twice]
    if "prompt" not in known:
        message = "the column is missing; the first line must name the columns"
        wrong.append(_column_problem(line, "prompt", "required", message))
    if wrong:
        raise InvalidRequest(wrong)
    return fields


def _field_of(name: str) -> str | None:
    """Return the field that a column is for; None = a remark, "" = unknown."""
    if name.startswith(METADATA_PREFIX) and name != METADATA_PREFIX:
        return name
    plain = name.casefold()
    if plain in IGNORED:
        return None
    plain = ALIASES.get(plain, plain)
    return plain if plain in COLUMNS else ""


def _row(line: int, cells: Sequence[str], columns: Sequence[str | None]) -> RawRow:
    if len(cells) > len(columns):
        message = (
            f"it has {len(cells)} cells, the header has {len(columns)};"
            " put texts that hold the separator in quotes"
        )
        return RawRow(line=line, value={}, problems=(_problem("", "width", message),))
    values: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    wrong: list[FieldProblem] = []
    for name, cell in zip(columns, cells, strict=False):
        text = cell.strip()
        if name is None or not text:
            continue
        if name.startswith(METADATA_PREFIX):
            metadata[name.removeprefix(METADATA_PREFIX)] = text
            continue
        try:
            values[name] = COLUMNS[name](text)
        except ValueError as error:
            wrong.append(_problem(name, "type", str(error)))
    if metadata:
        values["metadata"] = metadata
    return RawRow(line=line, value=values, problems=tuple(wrong))


def _item(line: int, text: bytes, decode: Callable[[str], object]) -> RawRow:
    try:
        return RawRow(line=line, value=decode(text.decode("utf-8").strip()))
    except UnicodeDecodeError as error:
        wrong = _problem("", "encoding", f"byte {error.start} of the line is not UTF-8")
    except RecursionError:
        wrong = _problem("", "malformed", "it is nested too deeply; a row is flat")
    except ValueError as error:
        wrong = _problem("", "malformed", f"the line is not JSON: {str(error)[:200]}")
    return RawRow(line=line, value={}, problems=(wrong,))


def _whole(cell: str) -> int:
    """Read a whole number; spreadsheets also write `7.0`, and `4.3E+09`, which has lost digits."""
    whole = cell.removesuffix(".0").removesuffix(",0")
    if not _WHOLE.fullmatch(whole):
        raise ValueError(f"{cell[:40]!r} is not a whole number; format the column as one")
    return int(whole)


def _number(cell: str) -> float:
    if not _DECIMAL.fullmatch(cell):
        raise ValueError(f"{cell[:40]!r} is not a number; write 5 or 5.5")
    return float(cell.replace(",", "."))


def _yes_no(cell: str) -> bool:
    try:
        return _YES_NO[cell.casefold()]
    except KeyError:
        raise ValueError(f"{cell[:40]!r} is neither true nor false") from None


COLUMNS: Mapping[str, Callable[[str], Any]] = {
    CUSTOM_ID: str,
    "prompt": str,
    "negative_prompt": str,
    "use_default_negative_prompt": _yes_no,
    "resolution": str,
    "aspect_ratio": str,
    "duration": _number,
    "frame_rate": _whole,
    "style": str,
    "camera": str,
    "language": str,
    "enable_physics": _yes_no,
    "lora": read_choice,
    "seed": _whole,
    "priority": str,
    "cache": _yes_no,
    "client_reference": str,
    "webhook_url": str,
}
"""Columns, and what turns a cell into a value. `metadata.KEY` is one too."""

IGNORED = frozenset({"", "note", "备注", "備考"})
"""Columns for the writer's own remarks."""

ALIASES: Mapping[str, str] = {
    "name": CUSTOM_ID,
    "编号": CUSTOM_ID,
    "編號": CUSTOM_ID,
    "番号": CUSTOM_ID,
    "提示词": "prompt",
    "提示詞": "prompt",
    "プロンプト": "prompt",
    "反向提示词": "negative_prompt",
    "ネガティブプロンプト": "negative_prompt",
    "分辨率": "resolution",
    "解像度": "resolution",
    "画幅": "aspect_ratio",
    "比率": "aspect_ratio",
    "aspect": "aspect_ratio",
    "时长": "duration",
    "時長": "duration",
    "秒数": "duration",
    "duration_s": "duration",
    "帧率": "frame_rate",
    "フレームレート": "frame_rate",
    "风格": "style",
    "スタイル": "style",
    "运镜": "camera",
    "運鏡": "camera",
    "カメラワーク": "camera",
    "语言": "language",
    "言語": "language",
    "种子": "seed",
    "シード": "seed",
    "优先级": "priority",
    "優先度": "priority",
}
"""Other names of columns, case-folded."""


def _did_you_mean(name: str) -> str:
    near = get_close_matches(name[:60].casefold(), [*COLUMNS, *ALIASES], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "remove it, or call it 'note'"
    return f"no field is called {name[:60]!r}; {hint}"


def _problem(name: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{name}" if name else "#", code=code, message=message)


def _column_problem(line: int, name: str, code: str, message: str) -> FieldProblem:
    escaped = name[:60].replace("~", "~0").replace("/", "~1")
    return FieldProblem(pointer=f"#/line/{line}/{escaped}", code=code, message=message)


def _unusable(line: int, code: str, message: str, *, limit: int | None = None) -> InvalidRequest:
    pointer = f"#/line/{line}"
    return InvalidRequest([FieldProblem(pointer=pointer, code=code, message=message, limit=limit)])
