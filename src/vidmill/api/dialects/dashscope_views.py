"""What the DashScope dialect answers: plain dictionaries, in the shapes of `dashscope_models`."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vidmill.domain.clip import ClipResult, Resolution, Size
from vidmill.domain.job import Job, WireStatus
from vidmill.services.tasks import TaskView

STATUSES: Mapping[WireStatus, str] = {
    WireStatus.QUEUED: "PENDING",
    WireStatus.PROCESSING: "RUNNING",
    WireStatus.COMPLETED: "SUCCEEDED",
    WireStatus.FAILED: "FAILED",
    WireStatus.CANCELLED: "CANCELED",
}
PENDING = STATUSES[WireStatus.QUEUED]
UNKNOWN = "UNKNOWN"
"""Of a task that is not there; both SDKs take it for an end."""

_LINES: Mapping[Resolution, int] = {Resolution.P480: 480, Resolution.P720: 720}

_FAILURES: Mapping[str, str] = {
    "engine_failed": "InternalError.Algo",
    "bad_output": "InternalError.Algo",
    "spec_unsupported": "InternalError.Algo",
    "timed_out": "InternalError.Timeout",
}
_FAILURE = "InternalError"


def bare_id(job: Job) -> str:
    """Return the task's id without a prefix, as this dialect shows it."""
    return job.public_id.partition("_")[2]


def star(size: Size) -> str:
    """Return *size* as this dialect writes it, `1280*720`."""
    return f"{size.width_px}*{size.height_px}"


def brief(task_id: str, status: str) -> dict[str, Any]:
    """Return what a submit and a cancel say of a task."""
    return {"task_id": task_id, "task_status": status}


def task_doc(view: TaskView, video_url: str | None) -> dict[str, Any]:
    """Return all about a task but the `request_id`."""
    job, run = view.job, view.run
    output = {
        **brief(bare_id(job), STATUSES[view.status]),
        "submit_time": _instant(job.submitted_at),
        "scheduled_time": _instant(run.started_at),
        "end_time": _instant(job.finished_at),
        "video_url": video_url,
        **_prompts(job),
        **_failure(job),
        "progress": view.progress,
        "queue_position": view.outlook.position,
    }
    doc: dict[str, Any] = {"output": _without_nulls(output)}
    if job.result is not None:
        doc["usage"] = _usage(job, job.result)
    return doc


def list_doc(
    views: Sequence[TaskView], *, total: int, page_no: int, page_size: int
) -> dict[str, Any]:
    """Return a page; the 1.x SDK's users read `data`, the 2.x client reads `tasks`."""
    rows = [_row(view) for view in views]
    return {
        "total": total,
        "page_no": page_no,
        "page_size": page_size,
        "total_page": math.ceil(total / page_size),
        "data": rows,
        "tasks": rows,
    }


def _row(view: TaskView) -> dict[str, Any]:
    job = view.job
    status = STATUSES[view.status]
    return {
        "task_id": bare_id(job),
        "status": status,
        "task_status": status,
        "model_name": job.spec.profile,
        "gmt_create": _ms(job.submitted_at),
        "start_time": _ms(view.run.started_at),
        "end_time": _ms(job.finished_at),
    }


def _prompts(job: Job) -> dict[str, Any]:
    if job.result is None:
        return {}
    return {"orig_prompt": job.request.get("prompt"), "actual_prompt": job.spec.prompt}


def _failure(job: Job) -> dict[str, Any]:
    if job.status is not WireStatus.FAILED:
        return {}
    return {
        "code": _FAILURES.get(job.error_code or "", _FAILURE),
        "message": job.error_message or job.error_code,
    }


def _usage(job: Job, result: ClipResult) -> dict[str, Any]:
    duration_s = result.duration_s
    seconds = int(duration_s) if duration_s.is_integer() else duration_s
    size = star(result.size)
    return {
        "video_count": 1,
        "video_duration": seconds,
        "video_ratio": size,
        "duration": seconds,
        "size": size,
        "SR": _LINES[job.spec.resolution],
    }


def _instant(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return moment.isoformat(sep=" ", timespec="milliseconds")


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _without_nulls(doc: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in doc.items() if value is not None}
