"""Query parameters of the native dialect, with every wrong one named at once."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from vidmill.domain.clip import forbidden_characters, normalise_text
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.job import WireStatus
from vidmill.domain.order import METADATA_KEY_MAX_CHARS, METADATA_VALUE_MAX_CHARS
from vidmill.store.jobs import JobFilter

LIMIT_DEFAULT = 20
ORDERS = ("desc", "asc")
TEXT_MAX_CHARS = 200
METADATA_PREFIX = "metadata."
METADATA_NAME = re.compile(rf'metadata\.[^"\\\x00-\x1f]{{1,{METADATA_KEY_MAX_CHARS}}}')
"""A key with a quote or a backslash cannot be written in a path of SQLite's JSON functions."""

LIMIT_MAX = 100
WAIT_MAX_S = 30.0
VARIANTS = ("video", "poster", "preview")

Parser = Callable[[str], Any]


def read_query(request: Request, parsers: Mapping[str, Parser]) -> dict[str, Any]:
    """Return the values of the parameters in *parsers* that are there.

    Raises:
        InvalidRequest: A value is wrong, a parameter is unknown, or one is given twice.
    """
    query = request.scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query, keep_blank_values=True)
    return read_pairs(pairs, parsers, place="query", unknown="unknown_parameter")


def read_pairs(
    pairs: Iterable[tuple[str, str]], parsers: Mapping[str, Parser], *, place: str, unknown: str
) -> dict[str, Any]:
    """Return the values of *pairs*, which stand in *place*; *unknown* is the code of a wrong name.

    Raises:
        InvalidRequest: As `read_query`.
    """
    wrong: list[FieldProblem] = []
    values: dict[str, Any] = {}
    for name, text in pairs:
        pointer = "/".join(filter(None, ("#", place, name[:60])))
        parser = parsers.get("metadata.KEY" if METADATA_NAME.fullmatch(name) else name)
        if parser is None:
            message = f"choose from: {', '.join(parsers)}"
            wrong.append(FieldProblem(pointer=pointer, code=unknown, message=message))
        elif name in values:
            wrong.append(FieldProblem(pointer=pointer, code="repeated", message="give it once"))
        else:
            try:
                values[name] = parser(text)
            except ValueError as error:
                problem = FieldProblem(pointer=pointer, code="not_offered", message=str(error))
                wrong.append(problem)
    if wrong:
        raise InvalidRequest(wrong)
    return values


def required(values: Mapping[str, Any], name: str) -> str:
    """Return a parameter that must be there."""
    if name not in values:
        raise InvalidRequest([_problem(name, "required", "it is missing; add it")])
    return str(values[name])


def wait_s(text: str) -> float:
    """Parse the seconds of a long poll."""
    seconds = _number(text)
    if not 0 <= seconds <= WAIT_MAX_S:
        raise ValueError(f"it must be 0 to {WAIT_MAX_S:g} seconds")
    return seconds


_PREFER = re.compile(r"wait=(\d{1,5})(?:\.\d+)?")


def preferred_wait_s(prefer: str | None) -> float:
    """Return the seconds of `Prefer: wait=n` (RFC 7240 §4.3), at most `WAIT_MAX_S`; 0 = none."""
    parts = (part.strip().lower() for part in (prefer or "").split(","))
    waits = (match for part in parts if (match := _PREFER.fullmatch(part)))
    return next((min(WAIT_MAX_S, float(match[1])) for match in waits), 0.0)


def page_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LIMIT_MAX))):
        raise ValueError(f"it must be a whole number from 1 to {LIMIT_MAX}")
    if not 1 <= int(text) <= LIMIT_MAX:
        raise ValueError(f"it must be 1 to {LIMIT_MAX}")
    return int(text)


def status(text: str) -> WireStatus:
    try:
        return WireStatus(text)
    except ValueError:
        raise ValueError(f"choose one of: {', '.join(WireStatus)}") from None


def variant(text: str) -> str:
    if text not in VARIANTS:
        raise ValueError(f"choose one of: {', '.join(VARIANTS)}")
    return text


def instant(text: str) -> float:
    """Parse RFC 3339, or Unix seconds; without an offset it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        seconds = _number(text)
    return seconds


def order(text: str) -> str:
    if text not in ORDERS:
        raise ValueError(f"choose one of: {', '.join(ORDERS)}")
    return text


def short_text(text: str) -> str:
    """Parse what texts are compared with, in the form they are kept in."""
    normal = normalise_text(text)
    if not 1 <= len(normal) <= TEXT_MAX_CHARS:
        raise ValueError(f"it must have 1 to {TEXT_MAX_CHARS} characters")
    if bad := forbidden_characters(normal):
        raise ValueError(f"it holds {', '.join(bad[:5])}; remove control characters")
    return normal


def metadata_value(text: str) -> str:
    if len(text) > METADATA_VALUE_MAX_CHARS or forbidden_characters(text):
        raise ValueError(f"no value has more than {METADATA_VALUE_MAX_CHARS} plain characters")
    return text


def job_filter(values: Mapping[str, Any]) -> JobFilter:
    return JobFilter(
        status=values.get("status"),
        client_reference=values.get("client_reference"),
        submitted_from=values.get("created_after"),
        submitted_before=values.get("created_before"),
        text=values.get("q"),
        metadata={
            name.removeprefix(METADATA_PREFIX): value
            for name, value in values.items()
            if name.startswith(METADATA_PREFIX)
        },
    )


LIST_PARAMETERS: Mapping[str, Parser] = {
    "status": status,
    "client_reference": short_text,
    "q": short_text,
    "metadata.KEY": metadata_value,
    "created_after": instant,
    "created_before": instant,
    "order": order,
    "limit": page_size,
    "cursor": str,
}

STATUS_PARAMETERS: Mapping[str, Parser] = {"task_id": str, "wait": wait_s}


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("it is neither an RFC 3339 instant nor a finite number")
    return number


def _problem(name: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/query/{name[:60]}", code=code, message=message)
