"""The native dialect's table of routes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.websockets import WebSocket

from vidmill.api.desk import Desk
from vidmill.api.dialects import native_models as models
from vidmill.api.dialects import native_query as queries
from vidmill.api.dialects.native import Native
from vidmill.api.dialects.native_request import GenerateBody
from vidmill.api.dialects.native_views import PREFIX
from vidmill.api.dialects.native_webhook_routes import webhook_routes
from vidmill.api.dialects.served import FILE_TYPES
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.job import WireStatus
from vidmill.domain.permission import Scope

_PACE = {"Retry-After": "Seconds to wait before the next look, while the task is live."}
_ETAG = {"ETag": "Of the content; send it back in If-None-Match."}
_UNCHANGED = Answer(description="Nothing changed since the ETag you sent.", media_type="")


_OF_ORDERS = (
    errors.InvalidRequest,
    errors.MalformedBody,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
    errors.PermissionDenied,
    errors.ServiceUnavailable,
)
_OF_KEYS = (errors.IdempotencyKeyReused, errors.IdempotencyInProgress)


def native_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    native = Native(desk)
    return (
        *_making(native),
        *_looking(native),
        *_listing(native),
        _events(native),
        _content(native),
        *webhook_routes(desk),
    )


def native_sockets(desk: Desk) -> Sequence[tuple[str, Callable[[WebSocket], Awaitable[None]]]]:
    """Return the WebSocket routes, which the OpenAPI document has no words for."""
    return ((f"{PREFIX}/ws", Native(desk).socket),)


def _making(native: Native) -> tuple[Route, ...]:
    accepted = Answer(
        description="Queued, and safe from any crash.",
        model=models.TaskStatus,
        headers={
            **_PACE,
            "Location": "Where to ask how it stands.",
            "Idempotency-Replayed": "`true`: the key was used before; this is the task it made.",
        },
    )
    cached = Answer(
        description="Done: an identical clip was there, or you preferred to wait.",
        model=models.TaskStatus,
    )
    return (
        Route(
            method="POST",
            path=f"{PREFIX}/generate",
            handler=native.generate,
            summary="Submit a clip",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=GenerateBody,
            answers={202: accepted, 200: cached},
            errors=(
                *_OF_ORDERS,
                *_OF_KEYS,
                errors.QueueFull,
                errors.QuotaExceeded,
                errors.EnhancerUnavailable,
            ),
            parameters=(IDEMPOTENCY_KEY, _PREFER),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/estimate",
            handler=native.estimate,
            summary="What a clip would cost, and when it would be done; nothing is stored",
            permission=Scope.READ,
            body=GenerateBody,
            answers={200: Answer(description="The estimate.", model=models.Estimate)},
            errors=_OF_ORDERS,
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/regenerate",
            handler=native.regenerate,
            summary="Make a task like this one, with another seed and whatever the body changes",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=GenerateBody,
            is_body_partial=True,
            answers={202: accepted, 200: cached},
            errors=(
                *_OF_ORDERS,
                *_OF_KEYS,
                errors.TaskNotFound,
                errors.QueueFull,
                errors.QuotaExceeded,
                errors.EnhancerUnavailable,
            ),
            parameters=(_task_id("path"), IDEMPOTENCY_KEY, _PREFER),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/retry",
            handler=native.retry,
            summary="Make a finished task once more, with the same seed, as a new task",
            permission=Scope.SUBMIT,
            is_creating=True,
            answers={202: accepted},
            errors=(
                errors.TaskNotFound,
                errors.TaskStillLive,
                errors.InvalidRequest,
                errors.PermissionDenied,
                errors.IdempotencyKeyReused,
                errors.IdempotencyInProgress,
                errors.QueueFull,
                errors.QuotaExceeded,
                errors.ServiceUnavailable,
            ),
            parameters=(_task_id("path"), IDEMPOTENCY_KEY),
        ),
        *_ending(native),
    )


def _ending(native: Native) -> tuple[Route, ...]:
    return (
        Route(
            method="DELETE",
            path=f"{PREFIX}/tasks/{{task_id}}",
            handler=native.delete,
            summary="Delete a task and its files for good, whatever it is doing",
            permission=Scope.SUBMIT,
            answers={
                204: Answer(description="Nothing is left of it.", media_type=""),
                202: Answer(
                    description="Nobody finds it any more; the rest goes when its run has stopped.",
                    media_type="",
                ),
            },
            errors=(errors.TaskNotFound, errors.ServiceUnavailable),
            parameters=(_task_id("path"),),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/cancel",
            handler=native.cancel,
            summary="Cancel a task",
            permission=Scope.SUBMIT,
            answers={
                200: Answer(description="Cancelled.", model=models.TaskStatus),
                202: Answer(description="It runs, and is stopping.", model=models.TaskStatus),
            },
            errors=(errors.TaskNotFound, errors.TaskNotCancellable, errors.ServiceUnavailable),
            parameters=(_task_id("path"),),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/run-next",
            handler=native.run_next,
            summary="Put a queued task before your other queued ones; other users lose nothing",
            permission=Scope.SUBMIT,
            answers={200: Answer(description="It is your next.", model=models.TaskStatus)},
            errors=(errors.TaskNotFound, errors.TaskNotQueued, errors.ServiceUnavailable),
            parameters=(_task_id("path"),),
        ),
    )


def _looking(native: Native) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=f"{PREFIX}/status",
            handler=native.status,
            summary="How a task stands",
            permission=Scope.READ,
            answers={
                200: Answer(
                    description="The state.", model=models.TaskStatus, headers={**_PACE, **_ETAG}
                ),
                304: _UNCHANGED,
            },
            errors=(errors.TaskNotFound, errors.InvalidRequest, errors.ServiceUnavailable),
            parameters=(
                _task_id("query"),
                _query(
                    "wait",
                    "Answer when something changed, after so many seconds at most.",
                    type="number",
                    minimum=0,
                    maximum=queries.WAIT_MAX_S,
                ),
                _if_none_match(),
            ),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/result/{{task_id}}",
            handler=native.result,
            summary="The finished result",
            permission=Scope.READ,
            answers={
                200: Answer(description="The result.", model=models.TaskResult, headers=_ETAG),
                202: Answer(
                    description="Not finished; the state so far.",
                    model=models.TaskStatus,
                    headers=_PACE,
                ),
                304: _UNCHANGED,
            },
            errors=(errors.TaskNotFound, errors.TaskFailed, errors.TaskCancelled),
            parameters=(_task_id("path"), _if_none_match()),
        ),
    )


def _listing(native: Native) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=f"{PREFIX}/tasks",
            handler=native.tasks,
            summary="List and search tasks",
            permission=Scope.READ,
            answers={
                200: Answer(description="A page.", model=models.TaskPage, headers=_ETAG),
                304: _UNCHANGED,
            },
            errors=(errors.InvalidRequest, errors.InvalidCursor),
            parameters=(*_list_parameters(), _if_none_match()),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/tasks/{{task_id}}/explain",
            handler=native.explain,
            summary="Why a clip is as it is: what decided its pixels, and where its time went",
            permission=Scope.READ,
            answers={
                200: Answer(
                    description="The explanation.", model=models.Explanation, headers=_ETAG
                ),
                304: _UNCHANGED,
            },
            errors=(errors.TaskNotFound, errors.ServiceUnavailable),
            parameters=(_task_id("path"), _if_none_match()),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/tasks/{{task_id}}",
            handler=native.task,
            summary="Everything about a task",
            permission=Scope.READ,
            answers={
                200: Answer(description="The task.", model=models.Task, headers=_ETAG),
                304: _UNCHANGED,
            },
            errors=(errors.TaskNotFound,),
            parameters=(_task_id("path"), _if_none_match()),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/capabilities",
            handler=native.capabilities,
            summary="What this server can make",
            permission=Scope.READ,
            answers={
                200: Answer(description="Limits and model.", model=models.Capabilities),
                304: _UNCHANGED,
            },
        ),
    )


def _events(native: Native) -> Route:
    return Route(
        method="GET",
        path=f"{PREFIX}/tasks/{{task_id}}/events",
        handler=native.events,
        summary="Follow a task by server-sent events",
        permission=Scope.READ,
        answers={
            200: Answer(
                description="`id: attempt.seq`, `event: t2v.task.<what>`, `data`: an envelope "
                "`{seq, type, timestamp, data}` whose data is the TaskStatus. Comments keep "
                "the connection alive; the stream ends after the final event.",
                media_type="text/event-stream",
            ),
            204: Answer(description="Nothing more will come.", media_type=""),
        },
        errors=(errors.TaskNotFound, errors.ServiceUnavailable),
        parameters=(
            _task_id("path"),
            _header("Last-Event-ID", "The last event you got; older ones are not repeated."),
        ),
    )


def _content(native: Native) -> Route:
    return Route(
        method="GET",
        path=f"{PREFIX}/tasks/{{task_id}}/content",
        handler=native.content,
        summary="Download a file of a finished task",
        permission=Scope.READ,
        also_head=True,
        answers={
            200: Answer(description="The file.", media_type=FILE_TYPES),
            206: Answer(description="The part you asked for.", media_type=FILE_TYPES),
            302: Answer(description="Where the store serves it.", media_type=""),
            304: _UNCHANGED,
        },
        errors=(
            errors.TaskNotFound,
            errors.NotFound,
            errors.TaskFailed,
            errors.TaskCancelled,
            errors.RangeNotSatisfiable,
            errors.InvalidRequest,
        ),
        parameters=(
            _task_id("path"),
            _query("variant", "Which file.", type="string", enum=list(queries.VARIANTS)),
            _query("download", "Present: the browser saves it.", type="string"),
            _header("Range", "One byte range, e.g. `bytes=0-1023`."),
        ),
    )


def _list_parameters() -> tuple[Mapping[str, Any], ...]:
    return (
        _query("status", "Only these.", type="string", enum=list(WireStatus)),
        _query("client_reference", "Only those you named so.", type="string"),
        _query("created_after", "RFC 3339 or Unix seconds; inclusive.", type="string"),
        _query("created_before", "The same; exclusive.", type="string"),
        _query(
            "q",
            "In the prompt or the client reference, in whatever case.",
            type="string",
            maxLength=queries.TEXT_MAX_CHARS,
        ),
        _query(
            "metadata.KEY",
            "Only those whose metadata has this value under KEY. Several must all match; "
            "a KEY with a quote or a backslash cannot be asked for.",
            type="string",
        ),
        _query("order", "Newest first (`desc`, the default) or last.", enum=list(queries.ORDERS)),
        _query(
            "limit",
            "Tasks per page.",
            type="integer",
            minimum=1,
            maximum=queries.LIMIT_MAX,
            default=queries.LIMIT_DEFAULT,
        ),
        _query("cursor", "`next_cursor` of the page before, with the same filters.", type="string"),
    )


_PREFER: Mapping[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "description": f"`wait=n`: answer when the task is over, after n seconds at most (0 to "
    f"{queries.WAIT_MAX_S:g}); 202 if it still goes on then.",
    "schema": {"type": "string", "examples": ["wait=20"]},
}


def _task_id(place: str) -> Mapping[str, Any]:
    schema = {"type": "string", "examples": [models.TASK_ID]}
    return {"name": "task_id", "in": place, "required": True, "schema": schema}


def _query(name: str, description: str, **schema: Any) -> Mapping[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str) -> Mapping[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _if_none_match() -> Mapping[str, Any]:
    return _header("If-None-Match", "An ETag you got earlier.")
