"""How the DashScope dialect tells of errors: a flat body of `request_id`, `code` and `message`.

The 1.x SDK's `wait` gives up at the first answer to a poll that is neither 200, 503 nor 504, so a
look is never answered 429.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vidmill.api.errors import Asked, ErrorStyle, Look, headers_of
from vidmill.domain import errors


class DashScopeError(BaseModel):
    """An error; `code` is the service's own word for it where it has one."""

    model_config = ConfigDict(extra="forbid")

    request_id: str
    code: str = Field(examples=["InvalidParameter"])
    message: str


class _Kind(NamedTuple):
    status: int
    code: str


_INVALID = _Kind(400, "InvalidParameter")
_LATER = _Kind(503, "ServiceUnavailable")
_MISHAP = _Kind(500, "InternalError")

_KINDS: Mapping[type[errors.VidmillError], _Kind] = {
    errors.RequestError: _INVALID,
    errors.BodyTooLarge: _Kind(413, "InvalidParameter"),
    errors.BodyTooSlow: _Kind(408, "RequestTimeOut"),
    errors.Unauthorized: _Kind(401, "InvalidApiKey"),
    errors.PermissionDenied: _Kind(403, "AccessDenied"),
    errors.NotFound: _Kind(404, "NotFound"),
    errors.UnknownModel: _Kind(404, "ModelNotFound"),
    errors.MethodNotAllowed: _Kind(405, "MethodNotAllowed"),
    errors.UnsupportedOperation: _Kind(400, "UnsupportedOperation"),
    errors.IdempotencyInProgress: _Kind(409, "RequestInProgress"),
    errors.RateLimited: _Kind(429, "Throttling.RateQuota"),
    errors.QuotaExceeded: _Kind(429, "Throttling.AllocationQuota"),
    errors.QueueFull: _LATER,
    errors.ServiceUnavailable: _LATER,
}

_NO_RETRY = {"x-should-retry": "false"}
"""Makes the 2.x SDK give up at once: a quota is not there again in half a second."""


def _look(error: errors.VidmillError, asked: Asked) -> Look:
    kind = next((_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS), _MISHAP)
    if asked.method == "GET" and isinstance(error, errors.RateLimited):
        kind = _LATER
    body = {"request_id": asked.request_id, "code": kind.code, "message": str(error)}
    headers = headers_of(error)
    if isinstance(error, errors.QuotaExceeded):
        headers |= _NO_RETRY
    return Look(status=kind.status, body=body, headers=headers)


DASHSCOPE = ErrorStyle(model=DashScopeError, media_type="application/json", look=_look)
