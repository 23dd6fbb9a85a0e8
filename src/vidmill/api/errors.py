"""Errors over HTTP: the one table of what each means, and the native look, RFC 9457.

A dialect with a look of its own has an `ErrorStyle` of its own; statuses are the table's unless it
says otherwise.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from vidmill.domain import errors

MEDIA_TYPE = "application/problem+json"


class Asked(NamedTuple):
    """What an error answers to."""

    method: str
    path: str
    request_id: str

    @classmethod
    def of(cls, scope: Scope) -> "Asked":
        return cls(scope.get("method", ""), scope["path"], str(scope.get("request_id", "")))


@dataclass(frozen=True, kw_only=True)
class Look:
    """An error as one dialect tells it."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ErrorStyle:
    """How a dialect tells of errors.

    Attributes:
        model: The shape of every body that `look` makes, for the reference.
    """

    model: type[BaseModel]
    media_type: str
    look: Callable[[errors.VidmillError, Asked], Look]

    def response(
        self, error: errors.VidmillError, asked: Asked, headers: Mapping[str, str] | None = None
    ) -> Response:
        look = self.look(error, asked)
        text = json.dumps(look.body, ensure_ascii=False)
        return Response(
            text.encode("utf-8", "replace"),  # a refused text may hold lone surrogates
            status_code=look.status,
            media_type=self.media_type,
            headers={"Cache-Control": "no-store", **look.headers, **(headers or {})},
        )


class FieldError(BaseModel):
    """One wrong field."""

    model_config = ConfigDict(extra="forbid")

    pointer: str = Field(examples=["#/prompt"])
    code: str = Field(examples=["max_length"])
    message: str
    limit: int | float | str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is stable; docs/errors.md lists all of them."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    errors: list[FieldError] | None = None


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
    errors.BodyTooSlow: Kind(status=408, title="The body did not come in time"),
    errors.UnsupportedMediaType: Kind(
        status=415, title="The body is of a type that is not taken here"
    ),
    errors.Unauthorized: Kind(
        status=401,
        title="The API key is missing or wrong",
        headers={"WWW-Authenticate": 'Bearer realm="vidmill"'},
    ),
    errors.PermissionDenied: Kind(status=403, title="The key may not do this"),
    errors.NotFound: Kind(status=404, title="There is nothing here"),
    errors.TaskNotFound: Kind(status=404, title="There is no such task"),
    errors.BatchNotFound: Kind(status=404, title="There is no such batch"),
    errors.StoryboardNotFound: Kind(status=404, title="There is no such storyboard"),
    errors.WebhookNotFound: Kind(status=404, title="There is no such webhook endpoint"),
    errors.DeliveryNotFound: Kind(status=404, title="There is no such delivery"),
    errors.KeyNotFound: Kind(status=404, title="There is no such key"),
    errors.UnknownModel: Kind(status=404, title="There is no such model here"),
    errors.LoraNotFound: Kind(status=404, title="There is no such LoRA"),
    errors.UnsupportedOperation: Kind(status=400, title="This server cannot do that"),
    errors.MethodNotAllowed: Kind(status=405, title="The route does not know this method"),
    errors.TaskNotCancellable: Kind(status=409, title="The task is over already"),
    errors.TaskStillLive: Kind(status=409, title="The task is not over yet"),
    errors.TaskNotQueued: Kind(status=409, title="The task does not wait for a worker"),
    errors.TaskNotCompleted: Kind(status=409, title="The task is not completed yet"),
    errors.BatchStateConflict: Kind(status=409, title="The batch is in another state"),
    errors.StoryboardStateConflict: Kind(status=409, title="The storyboard is in another state"),
    errors.LoraConflict: Kind(status=409, title="The LoRA's name is taken, or tasks need it"),
    errors.WebhookDisabled: Kind(status=409, title="The webhook endpoint is switched off"),
    errors.IdempotencyInProgress: Kind(
        status=409,
        title="The first request under this key is still being worked on",
        headers={"Retry-After": "1"},
    ),
    errors.IdempotencyKeyReused: Kind(
        status=422, title="The idempotency key stands for another request"
    ),
    errors.TaskFailed: Kind(status=409, title="The task failed; there is no result"),
    errors.TaskCancelled: Kind(status=409, title="The task was cancelled; there is no result"),
    errors.RangeNotSatisfiable: Kind(status=416, title="The file has no such bytes"),
    errors.InvalidCursor: Kind(status=400, title="The cursor does not fit"),
    errors.LinkInvalid: Kind(status=403, title="The link is damaged"),
    errors.ResultExpired: Kind(status=410, title="The link has expired"),
    errors.RateLimited: Kind(status=429, title="Too many requests", headers={"Retry-After": "10"}),
    errors.QuotaExceeded: Kind(
        status=429, title="The plan's quota is used up", headers={"Retry-After": "3600"}
    ),
    errors.QueueFull: Kind(status=429, title="The queue is full", headers={"Retry-After": "10"}),
    errors.ServiceUnavailable: Kind(
        status=503, title="The service cannot do this now", headers={"Retry-After": "5"}
    ),
    errors.EnhancerUnavailable: Kind(
        status=503, title="The prompt enhancer gave no prompt", headers={"Retry-After": "5"}
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


def headers_of(error: errors.VidmillError) -> dict[str, str]:
    """Return the headers that belong to *error* in every dialect."""
    headers = dict(kind_of(error).headers or {})
    if isinstance(error, errors.RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    if isinstance(error, errors.RequestError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return headers


def _native_look(error: errors.VidmillError, asked: Asked) -> Look:
    body = problem(error, request_id=asked.request_id)
    return Look(status=kind_of(error).status, body=body, headers=headers_of(error))


NATIVE = ErrorStyle(model=Problem, media_type=MEDIA_TYPE, look=_native_look)

EXAMPLE_ID = "req_0f3c5a"


def example_of(kind: type[errors.VidmillError]) -> errors.VidmillError:
    """Return an error of *kind*, for the reference."""
    if issubclass(kind, errors.InvalidRequest):
        wrong = errors.FieldProblem(
            pointer="#/prompt",
            code="max_length",
            message="it has 201 characters, the limit is 200; shorten it",
            limit=200,
        )
        return kind([wrong])
    if issubclass(kind, errors.RangeNotSatisfiable):
        return kind(1_000_000)
    return kind(KINDS[kind].title)


_BY_STATUS: Mapping[int, type[errors.RequestError]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
}


def handle_http(request: Request, error: Exception, style: ErrorStyle) -> Response:
    """Answer what the framework raises: an unknown route, or a method the route lacks."""
    status = getattr(error, "status_code", 404)
    method, path = request.method, request.url.path[:200]
    message = f"there is no route {method} {path}; /openapi.json lists them all"
    known = _BY_STATUS.get(status, errors.NotFound)(message)
    headers = getattr(error, "headers", None)
    return style.response(known, Asked.of(request.scope), headers)
