"""What the OpenAI dialect answers: plain dictionaries, in the shapes of `openai_models`."""

from collections.abc import Mapping, Sequence
from typing import Any

from vidmill.domain.ids import public_name
from vidmill.domain.job import Job, WireStatus
from vidmill.services.tasks import TaskView

STATUSES: Mapping[WireStatus, str] = {
    WireStatus.QUEUED: "queued",
    WireStatus.PROCESSING: "in_progress",
    WireStatus.COMPLETED: "completed",
    WireStatus.FAILED: "failed",
    WireStatus.CANCELLED: "failed",
}
"""The SDK takes any other word for an end and returns at once."""

_FAILURES: Mapping[str, str] = {
    "engine_failed": "generation_failed",
    "bad_output": "generation_failed",
    "spec_unsupported": "generation_failed",
    "timed_out": "task_timeout",
}
_FAILURE = "server_error"

POLL_MIN_MS, POLL_MAX_MS = 1000, 10_000
LOOKS = 20
"""Looks at a task until it is done, where it is known when that will be."""


def video_id(job: Job) -> str:
    return public_name(job.public_id, "video")


def video_doc(view: TaskView) -> dict[str, Any]:
    """Return a video object."""
    job = view.job
    eta = view.outlook.eta
    return {
        "id": video_id(job),
        "object": "video",
        "status": STATUSES[view.status],
        "progress": 100
        if view.status is WireStatus.COMPLETED
        else min(99, int(view.progress * 100)),
        "created_at": int(job.submitted_at),
        "completed_at": _seconds(job.finished_at) if job.result else None,
        "expires_at": None,
        "model": job.request.get("model") or job.spec.profile,
        "prompt": job.request.get("prompt"),
        "seconds": f"{job.spec.duration_s:g}",
        "size": str(job.spec.size),
        "remixed_from_video_id": public_name(job.parent, "video") if job.parent else None,
        "error": _error(job),
        "queue_position": view.outlook.position,
        "eta_seconds": eta.p50 if eta else None,
        "seed": job.spec.seed,
    }


def poll_after_ms(view: TaskView) -> int:
    """Return when to look again; the SDK obeys whole numbers only."""
    eta = view.outlook.eta
    wanted_ms = round(eta.p50 * 1000 / LOOKS) if eta else POLL_MIN_MS
    return max(POLL_MIN_MS, min(POLL_MAX_MS, wanted_ms))


def list_doc(docs: Sequence[Mapping[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return a page; the SDK's pager goes on from `last_id`."""
    return {
        "object": "list",
        "data": list(docs),
        "has_more": has_more,
        "first_id": docs[0]["id"] if docs else None,
        "last_id": docs[-1]["id"] if docs else None,
    }


def model_doc(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vidmill"}


def _error(job: Job) -> dict[str, str] | None:
    if job.status is WireStatus.CANCELLED:
        return {"code": "cancelled", "message": "The video was cancelled."}
    if job.status is not WireStatus.FAILED:
        return None
    code = job.error_code or ""
    return {"code": _FAILURES.get(code, _FAILURE), "message": job.error_message or code}


def _seconds(instant: float | None) -> int | None:
    return None if instant is None else int(instant)
