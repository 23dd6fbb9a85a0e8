"""Every error as RFC 9457 problem details: the one table from our errors to HTTP."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vidmill.domain import errors

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one error looks over HTTP. `retry_after_s` goes into `Retry-After`."""

    status: int
    title: str
    headers: Mapping[str, str] | None = None


KINDS: Mapping[type[errors.VidmillError], Kind] = {
    errors.InvalidRequest: Kind(status=422, title="One or more fields are wrong"),
    errors.MalformedBody: Kind(status=400, title="The body is not JSON"),
    errors.BodyTooLarge: Kind(status=413, title="The body is too large"),
    errors.UnsupportedMediaType: Kind(status=415, title="The body is not sent as JSON"),
    errors.Unauthorized: Kind(
        status=401,
        title="The API key is missing or wrong",
        headers={"WWW-Authenticate": 'Bearer realm="vidmill"'},
    ),
    errors.PermissionDenied: Kind(status=403, title="The key may not do this"),
    errors.NotFound: Kind(status=404, title="There is nothing here"),
    errors.TaskNotFound: Kind(status=404, title="There is no such task"),
    errors.MethodNotAllowed: Kind(status=405, title="The route does not know this method"),
    errors.TaskNotCancellable: Kind(status=409, title="The task is over already"),
    errors.TaskStillLive: Kind(status=409, title="The task is not over yet"),
    errors.TaskNotQueued: Kind(status=409, title="The task does not wait for a worker"),
    errors.IdempotencyKeyReused: Kind(
        status=422, title="The idempotency key stands for another request"
    ),
    errors.TaskFailed: Kind(status=409, title="The task failed; there is no result"),
    errors.TaskCancelled: Kind(status=409, title="The task was cancelled; there is no result"),
    errors.RangeNotSatisfiable: Kind(status=416, title="The file has no such bytes"),
    errors.InvalidCursor: Kind(status=400, title="The cursor does not fit"),
    errors.LinkInvalid: Kind(status=403, title="The link is damaged"),
    errors.ResultExpired: Kind(status=410, title="The link has expired"),
    errors.QueueFull: Kind(status=429, title="The queue is full", headers={"Retry-After": "10"}),
    errors.ServiceUnavailable: Kind(
        status=503, title="The service cannot do this now", headers={"Retry-After": "5"}
    ),
}
"""Errors an answer may carry. Work errors are not among them: they live in the task."""

UNEXPECTED = Kind(status=500, title="Something is wrong on our side")


def kind_of(error: errors.VidmillError) -> Kind:
    """Return how *error* looks; a subclass looks like its nearest listed parent."""
    return next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), UNEXPECTED)


def problem(error: errors.VidmillError, *, request_id: str) -> dict[str, Any]:
    """Return the problem details of *error*."""
    kind = kind_of(error)
    body: dict[str, Any] = {
        "type": f"urn:vidmill:error:{error.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": str(error) or kind.title,
        "instance": f"/requests/{request_id}",
        "code": error.code,
        "request_id": request_id,
        "retryable": error.is_retryable,
    }
    if isinstance(error, errors.InvalidRequest):
        body["errors"] = [
            {key: value for key, value in asdict(wrong).items() if value is not None}
            for wrong in error.problems
        ]
    return body


def problem_response(
    error: errors.VidmillError, *, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    kind = kind_of(error)
    if isinstance(error, errors.RangeNotSatisfiable):
        headers = {"Content-Range": f"bytes */{error.size_bytes}", **(headers or {})}
    text = json.dumps(problem(error, request_id=request_id), ensure_ascii=False)
    return Response(
        text.encode("utf-8", "replace"),  # a refused text may hold lone surrogates
        status_code=kind.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(kind.headers or {}), **(headers or {})},
    )


def request_id_of(request: Request) -> str:
    return str(request.scope.get("request_id", ""))


_BY_STATUS: Mapping[int, type[errors.RequestError]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
}


def handle_http(request: Request, error: Exception) -> Response:
    """Answer what the framework raises: an unknown route, or a method the route lacks."""
    status = getattr(error, "status_code", 404)
    method, path = request.method, request.url.path[:200]
    message = f"there is no route {method} {path}; /openapi.json lists them all"
    known = _BY_STATUS.get(status, errors.NotFound)(message)
    headers = getattr(error, "headers", None)
    return problem_response(known, request_id=request_id_of(request), headers=headers)
