"""What routes of batches answer: plain dictionaries, in the shapes of `native_batch_models`."""

from collections.abc import Mapping
from typing import Any

from vidmill.api.dialects.native_views import PREFIX, UrlOf, error_doc, instant, result_doc
from vidmill.domain.batch import RowState
from vidmill.domain.job import WireStatus
from vidmill.services.batches import BatchView
from vidmill.services.tasks import TaskView
from vidmill.store.batches import BatchRow

_STATUSES: Mapping[RowState, str] = {
    RowState.INVALID: "invalid",
    RowState.READY: "ready",
    RowState.ACTIVE: WireStatus.PROCESSING,
    RowState.SUCCEEDED: WireStatus.COMPLETED,
    RowState.FAILED: WireStatus.FAILED,
    RowState.CANCELLED: WireStatus.CANCELLED,
}
"""How a row is shown that has no task to look at. An active one had one that was deleted while it
ran, and that is stopping."""

_PROBLEM = ("pointer", "code", "message", "limit")


def batch_doc(view: BatchView) -> dict[str, Any]:
    """Return how a batch stands."""
    batch, finish = view.batch, view.finish
    return {
        "batch_id": batch.public_id,
        "name": batch.name,
        "state": batch.state,
        "source": dict(batch.source),
        "counts": _counts(view),
        "price": _price(view),
        "eta_finish": finish and {"p10": finish.p10, "p50": finish.p50, "p90": finish.p90},
        "webhook_url": batch.webhook_url,
        "created_at": instant(batch.created_at),
        "expires_at": instant(batch.expires_at),
        "confirmed_at": instant(batch.confirmed_at),
        "finished_at": instant(batch.finished_at),
        "links": batch_links(batch.public_id),
    }


def batch_links(batch_id: str) -> dict[str, str]:
    """Return where else to look, relative to the server."""
    batch = f"{PREFIX}/batches/{batch_id}"
    parts = ("rows", "confirm", "pause", "resume", "cancel", "results", "archive")
    more = {part: f"{batch}/{part}" for part in parts}
    return {"self": batch, "rerun_failed": f"{batch}/rerun-failed", **more}


def row_doc(row: BatchRow, task: TaskView | None) -> dict[str, Any]:
    """Return how a row stands; *task* is that of its job."""
    asked = task.job.request if task else row.wanted or {}
    return {
        "line": row.line,
        "custom_id": row.custom_id,
        "status": task.status if task else _STATUSES[row.state],
        "task_id": task.job.public_id if task else None,
        "prompt": asked.get("prompt"),
        "price_credits": row.price_credits,
        "progress": task.progress if task else 0.0,
        "error": error_doc(task.job) if task else None,
        "problems": problem_docs(row),
    }


def result_line(
    row: BatchRow, task: TaskView | None, url_of: UrlOf, *, expires_at: int
) -> dict[str, Any]:
    """Return the line of a row that is over."""
    doc = result_doc(task, url_of, expires_at=expires_at) if task else {}
    return {
        "line": row.line,
        "custom_id": row.custom_id,
        "task_id": doc.get("task_id"),
        "status": _STATUSES[row.state],
        "result": doc.get("result"),
        "error": doc.get("error"),
        "problems": problem_docs(row),
    }


def status_of(row: BatchRow) -> str:
    """Return how a row that is over is shown."""
    return _STATUSES[row.state]


def problem_docs(row: BatchRow) -> list[dict[str, Any]]:
    return [
        {
            "field": problem["pointer"].removeprefix("#").removeprefix("/"),
            **{name: problem[name] for name in _PROBLEM if problem[name] is not None},
        }
        for problem in row.problems
    ]


def _counts(view: BatchView) -> dict[str, int]:
    active, running = view.count(RowState.ACTIVE), view.tally.num_running
    return {
        "total": sum(view.tally.rows.values()),
        "invalid": view.count(RowState.INVALID),
        "ready": view.count(RowState.READY),
        "queued": active - running,
        "processing": running,
        "completed": view.count(RowState.SUCCEEDED),
        "failed": view.count(RowState.FAILED),
        "cancelled": view.count(RowState.CANCELLED),
    }


def _price(view: BatchView) -> dict[str, int]:
    return {
        "credits": sum(view.tally.credits.values()),
        "held": view.credits(RowState.ACTIVE),
        "captured": view.credits(RowState.SUCCEEDED),
        "released": view.credits(RowState.FAILED, RowState.CANCELLED),
    }
