"""Batches in the native dialect: `/v1/t2v/batches`. Handlers translate; `services` decides."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vidmill.api.answers import json_answer, validated_answer
from vidmill.api.batch_archive import Entry, archive
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_batch_views as views
from vidmill.api.dialects import native_query
from vidmill.api.dialects.native_batch_request import (
    Upload,
    read_accept,
    read_batch,
    read_upload,
)
from vidmill.api.dialects.native_pages import PAGE, page_answer
from vidmill.api.load import leave
from vidmill.api.repeats import REPLAYED, read_key
from vidmill.domain.batch import BatchState, RowState
from vidmill.domain.clip import Asset
from vidmill.domain.errors import InvalidRequest
from vidmill.services.access import Caller
from vidmill.services.batches import BatchView
from vidmill.services.idempotency import IdempotencyKey
from vidmill.store.batches import Batch, BatchRow
from vidmill.telemetry import get_logger

log = get_logger(__name__)

SHOWN_PROBLEMS, SHOWN_SAMPLES = 100, 3
LINES_AT_ONCE = 100
"""Lines of results sent as one piece; each piece is a turn of a thread."""

_OVER = (RowState.INVALID, RowState.SUCCEEDED, RowState.FAILED, RowState.CANCELLED)
ROW_FILTERS: Mapping[str, RowState] = {
    "invalid": RowState.INVALID,
    "ready": RowState.READY,
    "active": RowState.ACTIVE,
    "completed": RowState.SUCCEEDED,
    "failed": RowState.FAILED,
    "cancelled": RowState.CANCELLED,
}


def _row_filter(text: str) -> RowState:
    if text not in ROW_FILTERS:
        raise ValueError(f"choose one of: {', '.join(ROW_FILTERS)}")
    return ROW_FILTERS[text]


_ROWS: Mapping[str, native_query.Parser] = {**PAGE, "status": _row_filter}


@dataclass(frozen=True)
class NativeBatches:
    """The handlers, one per route of `native_batch_routes`."""

    desk: Desk

    async def create_batch(self, request: Request, caller: Caller) -> Response:
        upload = await read_upload(request)
        key = read_key(request, {"batch": _digest(upload)})
        return await run_in_threadpool(self._create, upload, caller, key)

    async def confirm_batch(self, request: Request, caller: Caller) -> Response:
        batch_id = request.path_params["batch_id"]
        accept = read_accept(await request.body())
        key = read_key(request, {"confirm": batch_id, "accept": accept})
        with self.desk.under_way.alone(caller, key):
            view = await run_in_threadpool(
                lambda: self.desk.batches.confirm(batch_id, caller, accept, key=key)
            )
        return self._changed(view, caller)

    def rerun_failed(self, request: Request, caller: Caller) -> Response:
        batch_id = request.path_params["batch_id"]
        key = read_key(request, {"rerun": batch_id})
        with self.desk.under_way.alone(caller, key):
            view = self.desk.batches.rerun_failed(batch_id, caller, key=key)
        return self._changed(view, caller)

    def pause_batch(self, request: Request, caller: Caller) -> Response:
        return self._changed(
            self.desk.batches.pause(request.path_params["batch_id"], caller), caller
        )

    def resume_batch(self, request: Request, caller: Caller) -> Response:
        return self._changed(
            self.desk.batches.resume(request.path_params["batch_id"], caller), caller
        )

    def cancel_batch(self, request: Request, caller: Caller) -> Response:
        return self._changed(
            self.desk.batches.cancel(request.path_params["batch_id"], caller), caller
        )

    def delete_batch(self, request: Request, caller: Caller) -> Response:
        batch_id = request.path_params["batch_id"]
        self.desk.batches.delete(batch_id, caller)
        log.info("batch_deleted", batch_id=batch_id, tenant=caller.tenant)
        return Response(status_code=204)

    def batch(self, request: Request, caller: Caller) -> Response:
        view = self.desk.batches.get(request.path_params["batch_id"], caller)
        return validated_answer(views.batch_doc(view), request)

    def batches(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, PAGE)
        return page_answer(
            self.desk,
            asked,
            {"batches_of": caller.tenant_id},
            lambda after, limit: self.desk.batches.page(caller, after=after, limit=limit),
            place_of=lambda view: view.batch.id,
            doc_of=views.batch_doc,
        )

    def batch_rows(self, request: Request, caller: Caller) -> Response:
        asked = native_query.read_query(request, _ROWS)
        batch = self.desk.batches.get(request.path_params["batch_id"], caller).batch
        states = (asked["status"],) if "status" in asked else tuple(RowState)
        return page_answer(
            self.desk,
            asked,
            {"rows_of": batch.public_id, "status": asked.get("status")},
            lambda after, limit: self.desk.batches.rows(
                batch, after=after or 0, limit=limit, states=states
            ),
            place_of=lambda row: row.number,
            doc_of=self._row_doc,
        )

    async def batch_results(self, request: Request, caller: Caller) -> Response:
        batch = await self._found(request, caller)
        leave(request.scope)
        return StreamingResponse(
            self._result_lines(batch, request),
            media_type="application/x-ndjson",
            headers={"Cache-Control": "no-store"},
        )

    async def batch_archive(self, request: Request, caller: Caller) -> Response:
        batch = await self._found(request, caller)
        leave(request.scope)
        entries = (
            Entry(row=row, status=views.status_of(row))
            for row in self.desk.batches.all_rows(batch, _OVER)
        )

        def about() -> dict[str, Any]:
            return views.batch_doc(self.desk.batches.get(batch.public_id, caller))

        return StreamingResponse(
            archive(entries, self.desk.app.blobs, about),
            media_type="application/zip",
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="{batch.public_id}.zip"',
            },
        )

    def _create(self, upload: Upload, caller: Caller, key: IdempotencyKey | None) -> Response:
        batches = self.desk.batches
        rows, sheet = read_batch(
            upload,
            self.desk.submission.drafts.problems_for(caller),
            rows_max=self.desk.app.settings.batch_rows_max,
        )
        self._refuse_url(sheet.webhook_url)
        with self.desk.under_way.alone(caller, key):
            view = batches.check(rows, caller, sheet, key=key)
            is_replay = view.is_replay
            is_right = view.count(RowState.INVALID) == 0
            if upload.options.get("confirm") and is_right:
                view = batches.confirm(view.batch.public_id, caller, "all_or_nothing")
        if not is_replay:
            self._log(view, caller)
        headers = {"Location": views.batch_links(view.batch.public_id)["self"]}
        return json_answer(
            self._verdict_doc(view),
            status=201 if view.batch.state is BatchState.CHECKED else 202,
            headers=headers | REPLAYED if is_replay else headers,
        )

    def _refuse_url(self, url: str | None) -> None:
        wrong = url and self.desk.webhook_guard.problem_of(url, "#/webhook_url")
        if wrong:
            raise InvalidRequest([wrong])

    def _verdict_doc(self, view: BatchView) -> dict[str, Any]:
        rows = self.desk.batches.rows
        wrong = rows(view.batch, limit=SHOWN_PROBLEMS, states=[RowState.INVALID])
        right = [state for state in RowState if state is not RowState.INVALID]
        samples = rows(view.batch, limit=SHOWN_SAMPLES, states=right)
        return {
            **views.batch_doc(view),
            "problems": [views.row_doc(row, None) for row in wrong],
            "samples": [self._row_doc(row) for row in samples],
        }

    def _changed(self, view: BatchView, caller: Caller) -> Response:
        if not view.is_replay:
            self._log(view, caller)
        return json_answer(views.batch_doc(view), headers=REPLAYED if view.is_replay else {})

    def _log(self, view: BatchView, caller: Caller) -> None:
        batch = view.batch
        log.info("batch_changed", batch_id=batch.public_id, tenant=caller.tenant, state=batch.state)

    async def _found(self, request: Request, caller: Caller) -> Batch:
        batch_id = request.path_params["batch_id"]
        view = await run_in_threadpool(self.desk.batches.get, batch_id, caller)
        return view.batch

    def _row_doc(self, row: BatchRow) -> dict[str, Any]:
        return views.row_doc(row, self.desk.tasks.view(row.job) if row.job else None)

    def _result_lines(self, batch: Batch, request: Request) -> Iterator[bytes]:
        def url_of(asset: Asset) -> str:
            return self.desk.links.url(asset, request)

        pieces: list[bytes] = []
        for row in self.desk.batches.all_rows(batch, _OVER):
            task = self.desk.tasks.view(row.job) if row.job else None
            expires_at = self.desk.links.expires_at()
            line = views.result_line(row, task, url_of, expires_at=expires_at)
            pieces.append(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            if len(pieces) == LINES_AT_ONCE:
                yield b"".join(pieces)
                pieces = []
        yield b"".join(pieces)


def _digest(upload: Upload) -> str:
    """Return what a repetition of the request must repeat, shortened."""
    options = json.dumps(upload.options, sort_keys=True).encode()
    return hashlib.sha256(options + b"\n" + upload.data).hexdigest()
