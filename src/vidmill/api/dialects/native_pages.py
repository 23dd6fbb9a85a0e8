"""Pages of lists in the native dialect: a limit, and a cursor to where the next one begins."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from starlette.responses import Response

from vidmill.api.answers import json_answer
from vidmill.api.cursors import make_cursor, read_cursor
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_query

Item = TypeVar("Item")

PAGE: Mapping[str, native_query.Parser] = {"limit": native_query.page_size, "cursor": str}


def page_answer(
    desk: Desk,
    asked: Mapping[str, Any],
    question: Mapping[str, object],
    read: Callable[[int | None, int], list[Item]],
    *,
    place_of: Callable[[Item], int],
    doc_of: Callable[[Item], dict[str, Any]],
) -> Response:
    """Answer with one page of what *read* gives after a place, to a query read by `PAGE`.

    Raises:
        InvalidCursor: It belongs to another *question*.
    """
    secret, cursor = desk.app.signing_secret, asked.get("cursor")
    limit = asked.get("limit", native_query.LIMIT_DEFAULT)
    after = None if cursor is None else read_cursor(cursor, question, secret=secret)
    found = read(after, limit + 1)
    shown, has_more = found[:limit], len(found) > limit
    following = make_cursor(place_of(shown[-1]), question, secret=secret) if has_more else None
    doc = {
        "data": [doc_of(one) for one in shown],
        "has_more": has_more,
        "next_cursor": following,
    }
    return json_answer(doc)
