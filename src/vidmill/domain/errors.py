"""Every error Vidmill raises on purpose. Codes are public and never change their meaning.

VidmillError
├── RequestError             the caller can mend it; nothing was queued or charged
│   ├── InvalidRequest         one or more fields are wrong
│   ├── MalformedBody          not JSON
│   ├── BodyTooLarge, BodyTooSlow
│   ├── UnsupportedMediaType   of a type that is not taken here
│   ├── Unauthorized, PermissionDenied
│   ├── NotFound, MethodNotAllowed, UnsupportedOperation
│   │   ├── TaskNotFound, BatchNotFound, StoryboardNotFound
│   │   ├── WebhookNotFound, DeliveryNotFound
│   │   └── KeyNotFound, UnknownModel, LoraNotFound
│   ├── TaskNotCancellable, TaskStillLive, TaskNotQueued, TaskNotCompleted
│   ├── BatchStateConflict     the batch is in a state that forbids it
│   ├── StoryboardStateConflict   the same of a storyboard
│   ├── LoraConflict           its name is taken, or tasks need it
│   ├── WebhookDisabled        the endpoint is switched off
│   ├── IdempotencyKeyReused, IdempotencyInProgress
│   ├── TaskFailed, TaskCancelled   there will be no result
│   ├── RangeNotSatisfiable
│   ├── InvalidCursor
│   ├── LinkInvalid, ResultExpired
│   ├── RateLimited, QuotaExceeded, QueueFull   come back later
│   └── ServiceUnavailable     come back soon
│       └── EnhancerUnavailable  the language model that writes prompts out gave none
└── WorkError                a job went wrong
    ├── EngineFailed           retryable: the next run may well succeed
    │   └── EngineOutOfMemory
    ├── SpecUnsupported        this model cannot make such a clip
    ├── ModelInvalid           the folder is damaged or of another shape
    ├── LoraInvalid            the LoRA's files are gone, damaged or of another model
    ├── BadOutput              frames or file failed a check
    ├── ShotMissing            a shot of a storyboard has no clip
    ├── StorageFailed          retryable
    │   └── DiskFull
    ├── WorkerLost             retryable: the process or its lease is gone
    │   └── RenderCrashed        the render process died with the job in it
    ├── PoisonJob              it ended the render process too often; never retried
    ├── TimedOut               the hard limit; never retried
    ├── InternalError          retryable: a defect of ours, not of the request
    └── JobCancelled           not a failure: unwinds an engine or an encoder
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class VidmillError(Exception):
    """Root of the tree. The message says what happened, the value, and the remedy."""

    code: ClassVar[str] = "internal_error"
    is_retryable: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class FieldProblem:
    """One wrong field of a request.

    Attributes:
        pointer: JSON pointer (RFC 6901) as a URI fragment, `#/prompt`.
        code: Stable, machine-readable reason, e.g. `max_length`.
        message: What is wrong with the value, and the remedy.
        limit: The limit that was exceeded, where there is one.
    """

    pointer: str
    code: str
    message: str
    limit: int | float | str | None = None


class RequestError(VidmillError):
    """The caller can mend it; nothing was queued or charged.

    Attributes:
        retry_after_s: When it is worth trying again, where that is known.
    """

    def __init__(self, *args: object, retry_after_s: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after_s = retry_after_s


class InvalidRequest(RequestError):
    """One or more fields are wrong; `problems` names all of them at once."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(f"{p.pointer[2:] or 'body'}: {p.message}" for p in problems))
        self.problems = tuple(problems)


class MalformedBody(RequestError):
    code = "malformed_body"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class BodyTooSlow(RequestError):
    code = "body_too_slow"
    is_retryable = True


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"


class Unauthorized(RequestError):
    code = "unauthorized"


class PermissionDenied(RequestError):
    code = "permission_denied"


class NotFound(RequestError):
    code = "not_found"


class TaskNotFound(NotFound):
    code = "task_not_found"


class BatchNotFound(NotFound):
    code = "batch_not_found"


class StoryboardNotFound(NotFound):
    code = "storyboard_not_found"


class WebhookNotFound(NotFound):
    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    code = "delivery_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class UnknownModel(NotFound):
    code = "unknown_model"


class LoraNotFound(NotFound):
    code = "lora_not_found"


class UnsupportedOperation(RequestError):
    code = "unsupported_operation"


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"


class TaskNotCancellable(RequestError):
    code = "task_not_cancellable"


class TaskStillLive(RequestError):
    code = "task_still_live"


class TaskNotQueued(RequestError):
    code = "task_not_queued"


class TaskNotCompleted(RequestError):
    code = "task_not_completed"


class BatchStateConflict(RequestError):
    code = "batch_state"


class StoryboardStateConflict(RequestError):
    code = "storyboard_state"


class LoraConflict(RequestError):
    code = "lora_conflict"


class WebhookDisabled(RequestError):
    code = "webhook_disabled"


class IdempotencyKeyReused(RequestError):
    code = "idempotency_key_reused"


class IdempotencyInProgress(RequestError):
    code = "idempotency_in_progress"
    is_retryable = True


class TaskFailed(RequestError):
    code = "task_failed"


class TaskCancelled(RequestError):
    code = "task_cancelled"


class RangeNotSatisfiable(RequestError):
    """The file has *size_bytes*, and the range asked for begins behind them."""

    code = "range_not_satisfiable"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the file has {size_bytes} bytes; ask for some of those")
        self.size_bytes = size_bytes


class InvalidCursor(RequestError):
    code = "invalid_cursor"


class LinkInvalid(RequestError):
    code = "link_invalid"


class ResultExpired(RequestError):
    code = "result_expired"


class RateLimited(RequestError):
    code = "rate_limited"
    is_retryable = True


class QuotaExceeded(RequestError):
    code = "quota_exceeded"


class QueueFull(RequestError):
    code = "queue_full"
    is_retryable = True


class ServiceUnavailable(RequestError):
    code = "service_unavailable"
    is_retryable = True


class EnhancerUnavailable(ServiceUnavailable):
    code = "enhancer_unavailable"


class WorkError(VidmillError):
    """A job went wrong; `decide` in `domain.job` says what happens next."""


class EngineFailed(WorkError):
    """The engine failed; a poisonous failure leaves its process unable to draw another clip."""

    code = "engine_failed"
    is_retryable = True
    is_poisonous = True


class EngineOutOfMemory(EngineFailed):
    """Memory that ran out is free again."""

    code = "out_of_memory"
    is_poisonous = False


class SpecUnsupported(WorkError):
    code = "spec_unsupported"


class ModelInvalid(WorkError):
    code = "model_invalid"


class LoraInvalid(WorkError):
    code = "lora_invalid"


class BadOutput(WorkError):
    code = "bad_output"
    is_retryable = True


class ShotMissing(WorkError):
    code = "shot_missing"


class StorageFailed(WorkError):
    code = "storage_failed"
    is_retryable = True


class DiskFull(StorageFailed):
    code = "disk_full"


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk, a used-up quota and the process's file size limit look like to `write`."""


def storage_error(error: OSError, doing: str) -> StorageFailed:
    """Return the `StorageFailed` for *error*, met while *doing* ("writing clip.mp4")."""
    if error.errno in NO_ROOM:
        return DiskFull(f"no room left while {doing}: {error.strerror}; free space, then retry")
    return StorageFailed(f"{doing} failed: {error}")


class WorkerLost(WorkError):
    code = "worker_lost"
    is_retryable = True


class RenderCrashed(WorkerLost):
    code = "render_crashed"


class PoisonJob(WorkError):
    code = "poison_job"


class TimedOut(WorkError):
    code = "timed_out"


class InternalError(WorkError):
    code = "internal_error"
    is_retryable = True


class JobCancelled(WorkError):
    code = "cancelled"


def _tree(root: type[VidmillError]) -> dict[str, type[VidmillError]]:
    found = {root.code: root} if "code" in vars(root) else {}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


WORK_ERRORS: dict[str, type[VidmillError]] = _tree(WorkError)
"""Work errors by code: how a failure crosses a process boundary and comes back as itself."""

ERRORS: dict[str, type[VidmillError]] = _tree(RequestError) | WORK_ERRORS
"""The closed list of public error codes."""
