"""What the native dialect answers: plain dictionaries, in the shapes of `native_models`."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from vidmill.domain.clip import Aspect, Asset, ClipResult
from vidmill.domain.errors import WORK_ERRORS
from vidmill.domain.eta import Interval
from vidmill.domain.job import Job, JobState
from vidmill.services.tasks import TaskView
from vidmill.store.attempts import Attempt

PREFIX = "/v1/t2v"

UrlOf = Callable[[Asset], str]


@lru_cache(maxsize=8192)
def instant(seconds: float | None) -> str | None:
    """Return Unix seconds as RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def status_doc(view: TaskView, url_of: UrlOf) -> dict[str, Any]:
    """Return what every answer about a task says."""
    job, run, outlook = view.job, view.run, view.outlook
    eta = outlook.eta
    video = job.result.assets.get("video") if job.result else None
    return {
        "task_id": job.public_id,
        "status": view.status,
        "phase": view.phase,
        "progress": view.progress,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "queue_position": outlook.position,
        "eta": {"p50": eta.p50, "p90": eta.p90} if eta else None,
        "eta_start": interval_doc(outlook.start),
        "eta_finish": interval_doc(outlook.finish),
        "cached": view.is_cached,
        "price": {"credits": job.price_credits, "state": view.price_state},
        "cancel_requested": job.is_cancel_requested,
        "result_url": url_of(video) if video else None,
        "error_message": job.error_message,
        "error": error_doc(job),
        "created_at": instant(job.submitted_at),
        "started_at": instant(run.started_at),
        "finished_at": instant(job.finished_at),
        "retry_at": _retry_at(run),
        "queued_s": _between(job.submitted_at, job.started_at),
        "running_s": _between(job.started_at, job.finished_at),
        "client_reference": job.client_reference,
        "prompt": job.spec.prompt,
        "duration": job.spec.duration_s,
        "resolution": job.spec.resolution,
        "aspect_ratio": job.request.get("aspect_ratio", Aspect.WIDE),
        "parent_task_id": job.parent,
        "links": links(job.public_id),
    }


def links(task_id: str) -> dict[str, str]:
    """Return where else to look, relative to the server."""
    task = f"{PREFIX}/tasks/{task_id}"
    return {
        "self": task,
        "status": f"{PREFIX}/status?task_id={task_id}",
        "result": f"{PREFIX}/result/{task_id}",
        "cancel": f"{task}/cancel",
        "run_next": f"{task}/run-next",
        "retry": f"{task}/retry",
        "regenerate": f"{task}/regenerate",
        "explain": f"{task}/explain",
        "events": f"{task}/events",
        "content": f"{task}/content",
    }


def result_doc(view: TaskView, url_of: UrlOf, *, expires_at: int) -> dict[str, Any]:
    """Return the status and, once there is one, all about the result."""
    doc = status_doc(view, url_of)
    if view.job.result is None:
        return doc
    result = _result(view.job.result, url_of, expires_at=expires_at)
    return {
        **doc,
        "poster_url": result["poster_url"],
        "preview_url": result["preview_url"],
        "result": result,
    }


def task_doc(
    view: TaskView, url_of: UrlOf, *, expires_at: int, attempts: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return everything about a task: what was asked, what was added, what the engine was told."""
    job = view.job
    request = dict(job.request)
    shaping = request.pop("shaping", {})
    return {
        "result": None,
        **result_doc(view, url_of, expires_at=expires_at),
        "request": request,
        "metadata": request.get("metadata", {}),
        "negative_prompt": job.spec.negative_prompt,
        "additions": shaping.get("additions", []),
        "prompt_rules_version": shaping.get("rules_version"),
        "language": shaping.get("language"),
        "seed": job.spec.seed,
        "steps": job.spec.steps,
        "guidance_scale": job.spec.guidance_scale,
        "guidance_scale_2": job.spec.guidance_scale_2,
        "flow_shift": job.spec.flow_shift,
        "model": job.result.model if job.result else {"name": job.spec.profile},
        "attempts": attempts,
    }


def _result(result: ClipResult, url_of: UrlOf, *, expires_at: int) -> dict[str, Any]:
    files = {name: file_doc(asset, url_of) for name, asset in result.assets.items()}
    video = files["video"]
    return {
        **video,
        "poster_url": files.get("poster", {}).get("url"),
        "preview_url": files.get("preview", {}).get("url"),
        "expires_at": instant(expires_at),
        "native_width": result.native.width_px,
        "native_height": result.native.height_px,
        "native_frame_rate": result.native_fps,
        "native_frames": result.native_frames,
        "is_upscaled": result.native.width_px < result.size.width_px,
        "frames": result.num_frames,
        "frame_rate": result.fps,
        "duration": result.duration_s,
        "seed": result.seed,
        "model": result.model,
        "timings_s": result.timings_s,
        "files": files,
    }


def file_doc(asset: Asset, url_of: UrlOf) -> dict[str, Any]:
    return {
        "url": url_of(asset),
        "content_type": asset.content_type,
        "size_bytes": asset.size_bytes,
        "md5": asset.md5,
        "sha256": asset.sha256,
        "width": asset.width_px,
        "height": asset.height_px,
    }


def error_doc(job: Job) -> Mapping[str, Any] | None:
    """Return why the last run of *job* failed, if one did."""
    if job.error_code is None:
        return None
    kind = WORK_ERRORS.get(job.error_code)
    return {
        "code": job.error_code,
        "message": job.error_message,
        "retryable": bool(kind and kind.is_retryable),
    }


def interval_doc(interval: Interval | None) -> dict[str, float] | None:
    """Return when something is expected, seconds from now."""
    if interval is None:
        return None
    return {"p10": interval.p10, "p50": interval.p50, "p90": interval.p90}


def _retry_at(run: Job) -> str | None:
    is_set = run.state is JobState.DELAYED and not run.is_paused
    return instant(run.not_before) if is_set else None


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(end - start, 3)


def attempts_doc(runs: list[Attempt]) -> list[dict[str, Any]]:
    """Return the runs of a task, oldest first."""
    return [
        {
            "attempt": run.attempt,
            "started_at": instant(run.started_at),
            "ended_at": instant(run.ended_at),
            "outcome": run.outcome,
            "error_code": run.error_code,
            "error_message": run.error_message,
        }
        for run in runs
    ]
