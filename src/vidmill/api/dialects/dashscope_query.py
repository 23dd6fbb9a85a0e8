"""Query parameters of DashScope's task list. Unknown ones are ignored, as the SDKs send strays."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from vidmill.api.dialects import dashscope_views, native_query
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.job import WireStatus
from vidmill.store.jobs import JobFilter

PAGE_SIZE_DEFAULT = 10
PAGE_SIZE_MAX = 100
PAGE_NO_MAX = 10_000
LISTED_MAX = 10_000
"""Tasks that a list counts and shows: counting a tenant's 100,000 took .1 s of the database."""

_COMPACT = re.compile("[0-9]{14}")
_STATUSES: Mapping[str, WireStatus] = {
    word: status for status, word in dashscope_views.STATUSES.items()
}
_NEVER = frozenset({dashscope_views.UNKNOWN, "SUSPENDED"})
"""Words of the service for states that no task in a list is in."""
_TOO_FAR = (
    f"a list shows the newest {LISTED_MAX} tasks of what is asked; ask for earlier ones by"
    " start_time and end_time"
)


class Listing(NamedTuple):
    """Which tasks are asked for; *filters* None = such as never are."""

    filters: JobFilter | None
    model_name: str | None
    page_no: int
    page_size: int


def read_listing(query: Mapping[str, str]) -> Listing:
    """Return what *query* asks for.

    Raises:
        InvalidRequest: It names every wrong parameter.
    """
    values: dict[str, Any] = {}
    wrong: list[FieldProblem] = []
    for name, parse in _PARSERS.items():
        try:
            values[name] = parse(query[name]) if query.get(name) else None
        except ValueError as error:
            wrong.append(FieldProblem(pointer=f"#/{name}", code="type", message=str(error)))
    page_no = values.get("page_no") or 1
    page_size = values.get("page_size") or PAGE_SIZE_DEFAULT
    if (page_no - 1) * page_size >= LISTED_MAX:
        wrong.append(FieldProblem(pointer="#/page_no", code="not_offered", message=_TOO_FAR))
    if wrong:
        raise InvalidRequest(wrong)
    word = values["status"]
    filters = JobFilter(
        status=_STATUSES.get(word or ""),
        submitted_from=values["start_time"],
        submitted_before=values["end_time"],
    )
    return Listing(
        filters=None if word in _NEVER else filters,
        model_name=values["model_name"],
        page_no=page_no,
        page_size=page_size,
    )


def _whole(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not is_number or not 1 <= int(text) <= most:
            raise ValueError(f"it must be a whole number from 1 to {most}")
        return int(text)

    return parse


def _status(text: str) -> str:
    if text not in _STATUSES and text not in _NEVER:
        raise ValueError(f"choose one of: {', '.join([*_STATUSES, *sorted(_NEVER)])}")
    return text


def _instant(text: str) -> float:
    """Parse `YYYYMMDDhhmmss` in UTC, or what the native API takes."""
    if _COMPACT.fullmatch(text):
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
    return native_query.instant(text)


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "status": _status,
    "start_time": _instant,
    "end_time": _instant,
    "model_name": str,
    "page_no": _whole(PAGE_NO_MAX),
    "page_size": _whole(PAGE_SIZE_MAX),
}
