"""Why a clip is as it is, and what one would be: the answers of `explain` and `estimate`."""

from collections.abc import Mapping, Sequence
from typing import Any

from vidmill.api.dialects.native_views import interval_doc
from vidmill.domain.lora import LoraUse
from vidmill.services.tasks import TaskView


def explain_doc(
    view: TaskView,
    *,
    runs: Sequence[Mapping[str, Any]],
    preview_frames: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return all that decided the pixels of a task, and where its time went."""
    job = view.job
    spec, result, request = job.spec, job.result, job.request
    shaping = request.get("shaping", {})
    return {
        "task_id": job.public_id,
        "status": view.status,
        "prompt": {"asked": request.get("prompt"), "used": spec.prompt},
        "negative_prompt": {
            "asked": request.get("negative_prompt"),
            "used": spec.negative_prompt,
        },
        "enhancement": shaping.get("enhancement"),
        "additions": shaping.get("additions", []),
        "prompt_rules_version": shaping.get("rules_version"),
        "language": shaping.get("language"),
        "seed": spec.seed,
        "seed_was_asked_for": request.get("seed") is not None,
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "guidance_scale_2": spec.guidance_scale_2,
        "flow_shift": spec.flow_shift,
        "drawn": {
            "width": spec.native.width_px,
            "height": spec.native.height_px,
            "frames": spec.num_frames,
            "frame_rate": spec.native_fps,
        },
        "delivered": {
            "width": spec.size.width_px,
            "height": spec.size.height_px,
            "frames": spec.delivered_frames,
            "frame_rate": spec.fps,
        },
        "model": result.model if result else {"name": spec.profile},
        "loras": [_lora_doc(spec.lora)] if spec.lora else [],
        "files_made_by": job.files_of or (view.leader.public_id if view.leader else job.public_id),
        "timings_s": result.timings_s if result else {},
        "attempts": list(runs),
        "preview_frames": list(preview_frames),
    }


def _lora_doc(lora: LoraUse) -> dict[str, Any]:
    hashes = {"high_sha256": lora.high, "low_sha256": lora.low}
    return {"name": lora.name, "strength": lora.strength, **hashes}


def estimate_doc(
    view: TaskView, *, gpu_s: float, clips_left_today: int | None, is_unwritten: bool
) -> dict[str, Any]:
    """Return what the task of *view*, which was not kept, would have been.

    *is_unwritten*: its prompt would be written out first, and nobody knows how.
    """
    job = view.job
    request = dict(job.request)
    shaping = request.pop("shaping", {})
    return {
        "cache_hit": view.is_cached,
        "price": {"credits": job.price_credits},
        "gpu_s": 0.0 if view.is_cached else round(gpu_s, 1),
        "queue_position": view.outlook.position,
        "eta_start": interval_doc(view.outlook.start),
        "eta_finish": interval_doc(view.outlook.finish),
        "clips_left_today": clips_left_today,
        "would_be_rejected": None,
        "request": request,
        "would_be_enhanced": is_unwritten,
        "prompt": None if is_unwritten else job.spec.prompt,
        "negative_prompt": job.spec.negative_prompt,
        "additions": shaping.get("additions", []),
    }


def refused_estimate_doc(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Return the estimate of what would be refused now, for *problem*."""
    unknown = (
        "price",
        "gpu_s",
        "queue_position",
        "eta_start",
        "eta_finish",
        "clips_left_today",
        "request",
    )
    return {
        "cache_hit": False,
        **dict.fromkeys([*unknown, "prompt", "negative_prompt"]),
        "additions": [],
        "would_be_enhanced": False,
        "would_be_rejected": problem,
    }
