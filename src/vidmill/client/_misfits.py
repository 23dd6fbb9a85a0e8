"""What is wrong with the types of a request's fields, told as the server tells it."""

import difflib
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from vidmill.client._errors import FieldError, InvalidRequest

_CODES: Mapping[str, str] = {"missing": "required", "extra_forbidden": "unknown_field"}
_REMEDIES: Mapping[str, str] = {"lora": '; write {"name": "acme", "strength": 0.8}'}
"""Of fields whose type alone does not say what to write."""

_SHOWN_CHARS = 60


def refusal(error: ValidationError, known: Collection[str]) -> InvalidRequest:
    """Return the error that names every wrong field; *known* are those there are."""
    errors = [_field_error(detail, known) for detail in error.errors(include_url=False)]
    return InvalidRequest(
        "; ".join(f"{wrong.field}: {wrong.message}" for wrong in errors),
        code="invalid_request",
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        errors=errors,
    )


def _field_error(detail: Mapping[str, Any], known: Collection[str]) -> FieldError:
    kind, path = detail["type"], [str(part) for part in detail["loc"]]
    if kind == "missing":
        message = "it is missing; add it"
    elif kind == "extra_forbidden":
        message = f"there is no such field{_did_you_mean(path[0], known)}"
    else:
        wanted = str(detail["msg"]).replace("Input", "it", 1)
        value = repr(detail["input"])[:_SHOWN_CHARS]
        message = f"{value} is not what it takes: {wanted}{_REMEDIES.get(path[0], '')}"
    return FieldError(pointer="#/" + "/".join(path), code=_CODES.get(kind, "type"), message=message)


def _did_you_mean(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name[:_SHOWN_CHARS], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; remove it"
