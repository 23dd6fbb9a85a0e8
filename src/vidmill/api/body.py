"""Request bodies: strict JSON (RFC 8259), every oddity refused with what is odd about it."""

import json
from typing import Any, NoReturn

from starlette.requests import Request

from vidmill.domain.errors import MalformedBody, UnsupportedMediaType


async def read_json(request: Request, *, absent: object = None) -> object:
    """Return the parsed body; *absent*, if there is such a thing, where there is none.

    Raises:
        UnsupportedMediaType: It is declared as something else.
        MalformedBody: It is not JSON, or JSON that means different things to different readers.
    """
    if absent is not None and not await request.body():
        return absent
    declared = request.headers.get("content-type", "application/json")
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"the body is declared as {media_type[:80]!r}; send Content-Type: application/json"
        )
    return parse(await request.body())


def parse(body: bytes) -> object:
    """Return what *body* says.

    Raises:
        MalformedBody: As above.
    """
    if not body.strip():
        raise MalformedBody('the body is empty; send a JSON object such as {"prompt": "..."}')
    try:
        return DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply; a request is flat") from error
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {str(error)[:200]}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:40]!r} occurs twice; keep one")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
