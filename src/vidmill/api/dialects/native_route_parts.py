"""What the native dialect's tables of routes are put together from."""

from collections.abc import Mapping
from typing import Any

from vidmill.api.dialects import native_query as queries
from vidmill.api.dialects.served import FILE_TYPES
from vidmill.api.routing import Answer
from vidmill.domain import errors

OF_BODIES = (
    errors.InvalidRequest,
    errors.MalformedBody,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
)
OF_KEYS = (errors.IdempotencyKeyReused, errors.IdempotencyInProgress)

ETAG = {"ETag": "Of the content; send it back in If-None-Match."}
REPLAYED = {"Idempotency-Replayed": "`true`: the key was used before; nothing new was done."}
UNCHANGED = Answer(description="Nothing changed since the ETag you sent.", media_type="")
FILE_ANSWERS: Mapping[int, Answer] = {
    200: Answer(description="The file.", media_type=FILE_TYPES),
    206: Answer(description="The part you asked for.", media_type=FILE_TYPES),
    302: Answer(description="Where the store serves it.", media_type=""),
    304: UNCHANGED,
}


def named(name: str, example: str, *, place: str = "path") -> Mapping[str, Any]:
    """Return the parameter that says which thing is meant."""
    schema = {"type": "string", "examples": [example]}
    return {"name": name, "in": place, "required": True, "schema": schema}


def query(name: str, description: str, **schema: Any) -> Mapping[str, Any]:
    """Return a parameter of the query, of the JSON *schema*."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def header(name: str, description: str) -> Mapping[str, Any]:
    """Return a request header."""
    schema = {"type": "string"}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def page_limit(things: str) -> Mapping[str, Any]:
    """Return the parameter for how many *things* a page has at the most."""
    return query(
        "limit",
        f"{things} per page.",
        type="integer",
        minimum=1,
        maximum=queries.LIMIT_MAX,
        default=queries.LIMIT_DEFAULT,
    )


IF_NONE_MATCH = header("If-None-Match", "An ETag you got earlier.")
FILE_PARAMETERS = (
    query("variant", "Which file.", type="string", enum=list(queries.VARIANTS)),
    query("download", "Present: the browser saves it.", type="string"),
    header("Range", "One byte range, e.g. `bytes=0-1023`."),
)
