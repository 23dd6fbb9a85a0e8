"""What routes of storyboards answer: dictionaries in the shapes of `native_storyboard_models`."""

from collections.abc import Mapping
from typing import Any

from vidmill.api.dialects.native_views import (
    PREFIX,
    UrlOf,
    error_doc,
    file_doc,
    instant,
    interval_doc,
)
from vidmill.domain.job import WireStatus
from vidmill.domain.storyboard import JoinedClip, ShotState
from vidmill.services.storyboards import Quote, ShotView, StoryboardView
from vidmill.store.storyboards import Storyboard

_STATUSES: Mapping[ShotState, WireStatus] = {
    ShotState.ACTIVE: WireStatus.QUEUED,
    ShotState.SUCCEEDED: WireStatus.COMPLETED,
    ShotState.FAILED: WireStatus.FAILED,
    ShotState.CANCELLED: WireStatus.CANCELLED,
}
"""How a shot is shown whose task was erased."""


def storyboard_doc(view: StoryboardView, url_of: UrlOf, *, expires_at: int) -> dict[str, Any]:
    """Return how a storyboard stands."""
    board = view.board
    result = board.result and _joined(board.result, url_of, expires_at=expires_at)
    return {
        "storyboard_id": board.public_id,
        "name": board.name,
        "state": board.state,
        "progress": view.progress,
        "revision": board.revision,
        "resolution": board.resolution,
        "aspect_ratio": board.aspect_ratio,
        "frame_rate": board.fps,
        "duration": view.duration_s,
        "priority": board.priority,
        "price": {"credits": view.price_credits},
        "eta_finish": interval_doc(view.finish),
        "shots": [_shot(shot) for shot in view.shots],
        "result": result,
        "error": _error(board),
        "webhook_url": board.webhook_url,
        "created_at": instant(board.created_at),
        "finished_at": instant(board.finished_at),
        "links": links(board.public_id, len(view.shots)),
    }


def links(board_id: str, num_shots: int) -> dict[str, Any]:
    """Return where else to look, relative to the server."""
    board = f"{PREFIX}/storyboards/{board_id}"
    shots = [f"{board}/shots/{number}" for number in range(1, num_shots + 1)]
    rest = {part: f"{board}/{part}" for part in ("cancel", "content")}
    return {"self": board, **rest, "shots": shots}


def estimate_doc(quote: Quote) -> dict[str, Any]:
    """Return what a storyboard would be."""
    return {
        "duration": quote.duration_s,
        "price": {"credits": sum(quote.prices)},
        "shots": list(quote.prices),
    }


def _shot(view: ShotView) -> dict[str, Any]:
    shot, task = view.shot, view.task
    return {
        "number": shot.number,
        "task_id": shot.task_id,
        "status": task.status if task else _STATUSES[shot.state],
        "progress": view.progress,
        "prompt": task.job.request.get("prompt") if task else None,
        "seed": task.job.spec.seed if task else None,
        "duration": shot.duration_s,
        "crossfade": shot.crossfade_s,
        "price_credits": shot.price_credits,
        "error": error_doc(task.job) if task else None,
    }


def _joined(result: JoinedClip, url_of: UrlOf, *, expires_at: int) -> dict[str, Any]:
    files = {name: file_doc(asset, url_of) for name, asset in result.assets.items()}
    return {
        **files["video"],
        "revision": result.revision,
        "poster_url": files.get("poster", {}).get("url"),
        "preview_url": files.get("preview", {}).get("url"),
        "expires_at": instant(expires_at),
        "frames": result.num_frames,
        "frame_rate": result.fps,
        "duration": result.duration_s,
        "timings_s": dict(result.timings_s),
        "files": files,
    }


def _error(board: Storyboard) -> dict[str, Any] | None:
    if board.error_code is None:
        return None
    return {"code": board.error_code, "message": board.error_message}
