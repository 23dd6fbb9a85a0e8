"""Every error the SDK raises.

VidmillError
├── ConnectionNotFound       no server is configured; the message names the places looked at
├── TransportError
│   ├── ServerUnreachable      nothing was sent
│   └── ConnectionLost         the request may have arrived
├── ApiError                 the server answered with a problem: `code`, `status`, `errors`
│   ├── InvalidRequest         400, 413, 415, 422; or a clip's types are wrong, and nothing was sent
│   ├── Unauthorized           401, 403
│   ├── NotFound               404, 410
│   ├── Conflict               409: the task is in a state that forbids it
│   ├── RateLimited            429
│   └── ServerError            5xx
├── TaskError                the clip went wrong; `task` has the details
│   ├── TaskFailed
│   ├── TaskCancelled
│   └── NotFinished            it is still being made
├── Timeout                  the wait was too short; the task goes on
├── BatchUnfinished          a wait for a batch ended before the batch, which goes on
├── StoryboardFailed         it will not be joined; `storyboard` says why
│   └── StoryboardCancelled    somebody cancelled it
├── StoryboardUnfinished     a wait for a storyboard was too short; it goes on
├── ModelNotServed           the server runs another model
├── WebhookRefused           what came is not a webhook of this server, or too old
└── DownloadDamaged          the bytes do not match the checksum
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # models raise what is defined here
    from vidmill.client._batch_models import Batch
    from vidmill.client._models import Task
    from vidmill.client._storyboard_models import Storyboard


class VidmillError(Exception):
    """Root of the tree."""


class ConnectionNotFound(VidmillError):
    """No server is configured."""


class TransportError(VidmillError):
    """The network failed."""


class ServerUnreachable(TransportError):
    """No connection could be made, so nothing was sent."""


class ConnectionLost(TransportError):
    """The connection broke after the request left: it may or may not have arrived."""


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One wrong field of a request.

    Attributes:
        pointer: JSON pointer as a URI fragment, `#/prompt`.
        limit: The limit that was exceeded, where there is one.
    """

    pointer: str
    code: str
    message: str
    limit: int | float | str | None = None

    @property
    def field(self) -> str:
        return self.pointer.removeprefix("#/") or "body"


class ApiError(VidmillError):
    """The server refused.

    Attributes:
        code: Stable, machine-readable reason, e.g. `invalid_request`.
        status: HTTP status.
        errors: Every wrong field, all at once.
        retry_after_s: When the server asks to come back.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.errors = tuple(errors)
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class InvalidRequest(ApiError):
    """One or more fields are wrong; nothing was queued."""


class Unauthorized(ApiError):
    """The API key is missing, wrong, or may not do this."""


class NotFound(ApiError):
    """There is no such task, or its files have expired."""


class Conflict(ApiError):
    """The task is in a state that forbids it."""


class RateLimited(ApiError):
    """Too many requests, or the queue is full."""


class ServerError(ApiError):
    """The server failed or is not ready."""


class TaskError(VidmillError):
    """The clip went wrong. `task` is its last known state."""

    def __init__(self, message: str, task: "Task") -> None:
        super().__init__(message)
        self.task = task


class TaskFailed(TaskError):
    """The task ended in failure; `task.error` says why."""


class TaskCancelled(TaskError):
    """Somebody cancelled the task."""


class NotFinished(TaskError):
    """The task is still being made; `wait` for it."""


class Timeout(VidmillError):
    """The wait was too short. The task goes on: `wait` for it again, or `cancel` it."""

    def __init__(self, message: str, task: "Task") -> None:
        super().__init__(message)
        self.task = task


class BatchUnfinished(VidmillError):
    """A wait for a batch ended before the batch, which goes on, or was never confirmed."""

    def __init__(self, message: str, batch: "Batch") -> None:
        super().__init__(message)
        self.batch = batch


class StoryboardFailed(VidmillError):
    """A shot of a storyboard has no clip, or the clips cannot be joined; replace the shot."""

    def __init__(self, message: str, storyboard: "Storyboard") -> None:
        super().__init__(message)
        self.storyboard = storyboard


class StoryboardCancelled(StoryboardFailed):
    """Somebody cancelled the storyboard; clips that were there stay, as tasks."""


class StoryboardUnfinished(VidmillError):
    """The wait for a storyboard was too short; it goes on."""

    def __init__(self, message: str, storyboard: "Storyboard") -> None:
        super().__init__(message)
        self.storyboard = storyboard


class ModelNotServed(VidmillError):
    """The server runs another model than the one that was named."""


class WebhookRefused(VidmillError):
    """What came is not a webhook of this server, was changed on its way, or is too old."""


class DownloadDamaged(VidmillError):
    """The bytes received do not match the checksum the server stated."""


BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}


def api_error(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return the error that an answer of *status* means; any body will do, even a proxy's HTML."""
    problem = _problem(body)
    fallback = ServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ApiError
    return BY_STATUS.get(status, fallback)(
        str(problem.get("detail") or problem.get("title") or f"the server answered {status}"),
        code=str(problem.get("code") or f"http_{status}"),
        status=status,
        errors=[_field_error(error) for error in problem.get("errors") or () if error],
        request_id=problem.get("request_id") or headers.get("x-request-id"),
        retry_after_s=retry_after_s(headers),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return `Retry-After` in seconds; the date form is treated as absent."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _field_error(error: Mapping[str, Any]) -> FieldError:
    return FieldError(
        pointer=str(error.get("pointer", "#")),
        code=str(error.get("code", "invalid")),
        message=str(error.get("message", "")),
        limit=error.get("limit"),
    )
