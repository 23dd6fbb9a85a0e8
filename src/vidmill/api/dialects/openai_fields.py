"""The fields of a body, sent as JSON or as a form: newer SDKs send forms, where all is text."""

import json
import re
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from vidmill.api.body import read_json
from vidmill.domain.errors import FieldProblem, InvalidRequest, MalformedBody

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
FIELDS_MAX = 100

FILE = object()
"""Stands for an uploaded file: none is taken, so its content does not matter."""

_NESTED = re.compile(r"([A-Za-z_]\w*)\[([^\[\]]+)\]")
"""How the SDK writes a member of an object in a form: `metadata[key]`."""


async def read_fields(request: Request) -> dict[str, Any]:
    """Return the body's fields; those that are null are left out, as forms cannot hold them.

    Raises:
        UnsupportedMediaType, MalformedBody: It is neither JSON nor a form.
        InvalidRequest: It is no object, or a field of a form is there twice.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared not in FORMS:
        data = await read_json(request)
        if not isinstance(data, dict):
            raise InvalidRequest([problem("", "type", "the body must be a JSON object")])
        return {name: value for name, value in data.items() if value is not None}
    try:
        async with request.form(max_files=1, max_fields=FIELDS_MAX) as form:
            return _fields_of(form)
    except (HTTPException, MultiPartException) as error:
        reason = getattr(error, "detail", None) or str(error)
        raise MalformedBody(f"the body is not the form it is declared as: {reason}") from None


def _fields_of(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        member = _NESTED.fullmatch(name)
        owner, key = (fields.setdefault(member[1], {}), member[2]) if member else (fields, name)
        if not isinstance(owner, dict) or key in owner:
            raise InvalidRequest([problem(name[:60], "repeated", "it is there twice; keep one")])
        owner[key] = FILE if isinstance(value, UploadFile) else value
    return fields


Reader = Callable[[Any], Any]
"""Returns a field's value in the type it ought to have. Raises ValueError with the remedy."""


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be text")  # noqa: TRY004  one kind of refusal for all readers
    return value


def whole_number(value: Any) -> int:
    number_ = number(value)
    if not number_.is_integer():
        raise ValueError("it must be a whole number")
    return int(number_)


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("it must be a number")  # noqa: TRY004  as above
    try:
        found = float(value)
    except OverflowError:
        found = inf
    except ValueError:
        raise ValueError("it must be a number") from None
    if not abs(found) < 1e15:  # noqa: PLR2004  no field means more, and infinity is no number
        raise ValueError("it must be a finite number")
    return found


def truth(value: Any) -> bool:
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise ValueError("it must be true or false")
    return found


def text_pairs(value: Any) -> dict[str, str]:
    """Read an object of text pairs, or the JSON text of one."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    is_pairs = isinstance(found, dict) and all(isinstance(v, str) for v in found.values())
    if not is_pairs:
        raise ValueError("it must be an object of text pairs")
    return dict(found)


def read_each(
    fields: Mapping[str, Any], readers: Mapping[str, Reader]
) -> tuple[dict[str, Any], list[FieldProblem]]:
    """Return the values of *fields*, each by its reader, and what is wrong with the others."""
    values: dict[str, Any] = {}
    wrong: list[FieldProblem] = []
    for name, value in fields.items():
        try:
            values[name] = readers[name](value)
        except KeyError:
            wrong.append(problem(name[:60], "unknown_field", "there is no such field; remove it"))
        except ValueError as error:
            wrong.append(problem(name, "type", str(error)))
    return values, wrong


def problem(name: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{name}", code=code, message=message)
