"""How the OpenAI dialect tells of errors: `{"error": {"message", "type", "param", "code"}}`.

The SDK decides by the status whether it repeats a request: 409, 429 and 5xx are sent three times.
So nothing that stays as it is has one of those, or a header says that it is final.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vidmill.api.errors import Asked, ErrorStyle, Look, headers_of
from vidmill.domain import errors


class OpenAIErrorBody(BaseModel):
    """What went wrong; `param` names the field where one is to blame."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None
    code: str | None = Field(examples=["invalid_value"])


class OpenAIError(BaseModel):
    """An error, as OpenAI's API wraps it."""

    model_config = ConfigDict(extra="forbid")

    error: OpenAIErrorBody


class _Kind(NamedTuple):
    status: int
    code: str
    type: str = "invalid_request_error"
    param: str | None = None


_INVALID = _Kind(400, "invalid_value")
_MISHAP = _Kind(500, "server_error", "server_error")

_KINDS: Mapping[type[errors.VidmillError], _Kind] = {
    errors.RequestError: _INVALID,
    errors.BodyTooLarge: _Kind(413, "request_too_large"),
    errors.BodyTooSlow: _Kind(408, "request_timeout"),
    errors.Unauthorized: _Kind(401, "invalid_api_key"),
    errors.PermissionDenied: _Kind(403, "permission_denied"),
    errors.NotFound: _Kind(404, "not_found"),
    errors.UnknownModel: _Kind(404, "model_not_found", param="model"),
    errors.MethodNotAllowed: _Kind(405, "method_not_allowed"),
    errors.UnsupportedOperation: _Kind(400, "unsupported_operation"),
    errors.TaskNotCompleted: _Kind(400, "video_not_ready"),
    errors.TaskFailed: _Kind(400, "video_failed"),
    errors.TaskCancelled: _Kind(400, "video_failed"),
    errors.IdempotencyKeyReused: _Kind(400, "idempotency_key_reused"),
    errors.IdempotencyInProgress: _Kind(409, "idempotency_in_progress"),
    errors.RangeNotSatisfiable: _Kind(416, "range_not_satisfiable"),
    errors.RateLimited: _Kind(429, "rate_limit_exceeded", "rate_limit_error"),
    errors.QuotaExceeded: _Kind(429, "insufficient_quota", "insufficient_quota"),
    errors.QueueFull: _Kind(503, "overloaded", "server_error"),
    errors.ServiceUnavailable: _Kind(503, "overloaded", "server_error"),
}

_CODES: Mapping[str, str] = {
    "max_length": "string_above_max_length",
    "required": "missing_required_parameter",
    "unknown_field": "unknown_parameter",
    "unknown_parameter": "unknown_parameter",
    "unsupported": "unsupported_operation",
}
"""Codes of wrong fields where OpenAI has a word of its own."""

NAMES: Mapping[str, str] = {"duration": "seconds", "resolution": "size", "aspect_ratio": "size"}
"""Fields of the native API, as this dialect calls them."""

_FINAL = {"x-should-retry": "false"}


def _look(error: errors.VidmillError, _asked: Asked) -> Look:
    kind = next((_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS), _MISHAP)
    code, param = kind.code, kind.param
    if isinstance(error, errors.InvalidRequest):
        error = errors.InvalidRequest([_renamed(problem) for problem in error.problems])
        first = error.problems[0]
        code, param = _CODES.get(first.code, code), first.pointer.rpartition("/")[2]
    inner = {"message": str(error), "type": kind.type, "param": param, "code": code}
    return Look(status=kind.status, body={"error": inner}, headers=_headers(error))


def _renamed(problem: errors.FieldProblem) -> errors.FieldProblem:
    place, slash, name = problem.pointer.rpartition("/")
    return replace(problem, pointer=f"{place}{slash}{NAMES.get(name, name)}")


def _headers(error: errors.VidmillError) -> dict[str, str]:
    headers = headers_of(error)
    if isinstance(error, errors.QuotaExceeded):
        return headers | _FINAL
    if seconds := headers.get("Retry-After"):
        headers["retry-after-ms"] = str(int(seconds) * 1000)
    return headers


OPENAI = ErrorStyle(model=OpenAIError, media_type="application/json", look=_look)
