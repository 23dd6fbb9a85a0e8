"""The table of routes of batches."""

from collections.abc import Mapping, Sequence
from typing import Any

from vidmill.api.desk import Desk
from vidmill.api.dialects import native_batch_models as models
from vidmill.api.dialects.native_batch_request import BatchBody, ConfirmBody
from vidmill.api.dialects.native_batches import ROW_FILTERS, NativeBatches
from vidmill.api.dialects.native_route_parts import (
    ETAG,
    IF_NONE_MATCH,
    OF_KEYS,
    REPLAYED,
    UNCHANGED,
    named,
    page_limit,
    query,
)
from vidmill.api.dialects.native_views import PREFIX
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.permission import Scope

BATCHES = f"{PREFIX}/batches"
BATCH = f"{BATCHES}/{{batch_id}}"

_QUEUES = (
    errors.InvalidRequest,
    errors.MalformedBody,
    errors.BodyTooLarge,
    errors.BatchStateConflict,
    *OF_KEYS,
    errors.QuotaExceeded,
    errors.QueueFull,
    errors.ServiceUnavailable,
)

_ID = named("batch_id", models.BATCH_ID)
_PAGING = (
    page_limit("Entries"),
    query("cursor", "`next_cursor` of the page before, with the same filters.", type="string"),
)

_FILE = {"type": "string", "format": "binary"}
_UPLOADS: Mapping[str, Mapping[str, Any]] = {
    "text/csv": _FILE,
    "application/x-ndjson": _FILE,
    "multipart/form-data": {
        "type": "object",
        "properties": {"file": _FILE, "name": {"type": "string"}, "priority": {"type": "string"}},
        "required": ["file"],
    },
}


def native_batch_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    native = NativeBatches(desk)
    body_max_bytes = desk.app.settings.batch_body_max_bytes
    return (
        _create(native, body_max_bytes),
        _confirm(native),
        *_changes(native),
        *_looks(native),
        *_downloads(native),
        _delete(native),
    )


def _create(native: NativeBatches, body_max_bytes: int) -> Route:
    headers = {"Location": "The batch.", **REPLAYED}
    return Route(
        method="POST",
        path=BATCHES,
        handler=native.create_batch,
        summary="Check and price many clips; nothing is queued or charged before you confirm",
        permission=Scope.SUBMIT,
        is_creating=True,
        body=BatchBody,
        also_bodies=_UPLOADS,
        body_max_bytes=body_max_bytes,
        answers={
            201: Answer(
                description="Checked: what each row costs, or what is wrong with it.",
                model=models.BatchVerdict,
                headers=headers,
            ),
            202: Answer(
                description="With `confirm=true`, every row being right: queued as well.",
                model=models.BatchVerdict,
                headers=headers,
            ),
        },
        errors=(*_QUEUES, errors.UnsupportedMediaType),
        parameters=(
            query("confirm", "`true`: queue it too if every row is right.", enum=["true", "false"]),
            query("name", "Of an uploaded file's batch: your name for it.", type="string"),
            query("priority", "The same: of rows that name none; `low`.", type="string"),
            query("webhook_url", "The same: told when all is over.", type="string"),
            query("defaults", "The same: a JSON object, fields of rows that lack them."),
            query("encoding", "The same: of a CSV; absent = found out.", type="string"),
            IDEMPOTENCY_KEY,
        ),
    )


def _confirm(native: NativeBatches) -> Route:
    return Route(
        method="POST",
        path=f"{BATCH}/confirm",
        handler=native.confirm_batch,
        summary="Queue the rows of a checked batch, all at once; again, it changes nothing",
        permission=Scope.SUBMIT,
        is_creating=True,
        body=ConfirmBody,
        is_body_partial=True,
        answers={200: _queued("Queued.")},
        errors=(errors.BatchNotFound, *_QUEUES),
        parameters=(_ID, IDEMPOTENCY_KEY),
    )


def _changes(native: NativeBatches) -> tuple[Route, ...]:
    named = (
        ("pause", native.pause_batch, "Begin nothing more of a batch; what runs goes on"),
        ("resume", native.resume_batch, "Go on with a paused batch"),
        ("cancel", native.cancel_batch, "Cancel what waits of a batch and stop what runs"),
    )
    changes = tuple(
        Route(
            method="POST",
            path=f"{BATCH}/{name}",
            handler=handler,
            summary=summary,
            permission=Scope.SUBMIT,
            answers={200: Answer(description="How it stands now.", model=models.Batch)},
            errors=(errors.BatchNotFound, errors.BatchStateConflict, errors.ServiceUnavailable),
            parameters=(_ID,),
        )
        for name, handler, summary in named
    )
    rerun = Route(
        method="POST",
        path=f"{BATCH}/rerun-failed",
        handler=native.rerun_failed,
        summary="Make the rows that failed once more, as new tasks with the same seeds",
        permission=Scope.SUBMIT,
        is_creating=True,
        answers={200: _queued("Queued again.")},
        errors=(errors.BatchNotFound, *_QUEUES),
        parameters=(_ID, IDEMPOTENCY_KEY),
    )
    return (*changes, rerun)


def _looks(native: NativeBatches) -> tuple[Route, ...]:
    errors_of_pages = (errors.InvalidRequest, errors.InvalidCursor, errors.ServiceUnavailable)
    statuses = list(ROW_FILTERS)
    return (
        Route(
            method="GET",
            path=BATCHES,
            handler=native.batches,
            summary="List batches, newest first",
            permission=Scope.READ,
            answers={200: Answer(description="A page.", model=models.BatchPage)},
            errors=errors_of_pages,
            parameters=_PAGING,
        ),
        Route(
            method="GET",
            path=BATCH,
            handler=native.batch,
            summary="How a batch stands",
            permission=Scope.READ,
            answers={
                200: Answer(
                    description="The batch.",
                    model=models.Batch,
                    headers=ETAG,
                ),
                304: UNCHANGED,
            },
            errors=(errors.BatchNotFound, errors.ServiceUnavailable),
            parameters=(_ID, IF_NONE_MATCH),
        ),
        Route(
            method="GET",
            path=f"{BATCH}/rows",
            handler=native.batch_rows,
            summary="The rows of a batch, each with its verdict or its task",
            permission=Scope.READ,
            answers={200: Answer(description="A page.", model=models.BatchRowPage)},
            errors=(errors.BatchNotFound, *errors_of_pages),
            parameters=(_ID, query("status", "Only these.", enum=statuses), *_PAGING),
        ),
    )


def _downloads(native: NativeBatches) -> tuple[Route, ...]:
    parts = (
        (
            "results",
            native.batch_results,
            "The rows that are over, a JSON object a line",
            "Each line is a BatchResult; rows under way are left out.",
            "application/x-ndjson",
        ),
        (
            "archive",
            native.batch_archive,
            "The finished clips of a batch as one ZIP, with a manifest",
            "`clips/`, `manifest.json` and `manifest.csv`; made while it is sent.",
            "application/zip",
        ),
    )
    return tuple(
        Route(
            method="GET",
            path=f"{BATCH}/{name}",
            handler=handler,
            summary=summary,
            permission=Scope.READ,
            answers={200: Answer(description=description, media_type=media_type)},
            errors=(errors.BatchNotFound, errors.ServiceUnavailable),
            parameters=(_ID,),
        )
        for name, handler, summary, description, media_type in parts
    )


def _delete(native: NativeBatches) -> Route:
    return Route(
        method="DELETE",
        path=BATCH,
        handler=native.delete_batch,
        summary="Forget a batch that is not under way; its tasks stay",
        permission=Scope.SUBMIT,
        answers={204: Answer(description="It is gone.", media_type="")},
        errors=(errors.BatchNotFound, errors.BatchStateConflict, errors.ServiceUnavailable),
        parameters=(_ID,),
    )


def _queued(description: str) -> Answer:
    return Answer(description=description, model=models.Batch, headers=REPLAYED)
