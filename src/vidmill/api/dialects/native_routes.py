"""The native dialect's table of routes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.websockets import WebSocket

from vidmill.api.desk import Desk
from vidmill.api.dialects import native_models as models
from vidmill.api.dialects import native_query as queries
from vidmill.api.dialects.native import Native
from vidmill.api.dialects.native_request import GenerateBody
from vidmill.api.dialects.native_route_parts import (
    ETAG,
    FILE_ANSWERS,
    FILE_PARAMETERS,
    IF_NONE_MATCH,
    OF_BODIES,
    OF_KEYS,
    UNCHANGED,
    header,
    named,
    page_limit,
    query,
)
from vidmill.api.dialects.native_views import PREFIX
from vidmill.api.dialects.native_webhook_routes import webhook_routes
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.job import WireStatus
from vidmill.domain.permission import Scope

_PACE = {"Retry-After": "Seconds to wait before the next look, while the task is live."}
_OF_ORDERS = (*OF_BODIES, errors.PermissionDenied, errors.ServiceUnavailable)
_ACCEPTED = Answer(
    description="Queued, and safe from any crash.",
    model=models.TaskStatus,
    headers={
        **_PACE,
        "Location": "Where to ask how it stands.",
        "Idempotency-Replayed": "`true`: the key was used before; this is the task it made.",
    },
)
_CACHED = Answer(
    description="Done: an identical clip was there, or you preferred to wait.",
    model=models.TaskStatus,
)
_TASK_ID = named("task_id", models.TASK_ID)
_PREFER: Mapping[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "description": f"`wait=n`: answer when the task is over, after n seconds at most (0 to "
    f"{queries.WAIT_MAX_S:g}); 202 if it still goes on then.",
    "schema": {"type": "string", "examples": ["wait=20"]},
}


def native_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    native = Native(desk)
    return (
        *_making(native),
        *_making_again(native),
        *_ending(native),
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
    return (
        Route(
            method="POST",
            path=f"{PREFIX}/generate",
            handler=native.generate,
            summary="Submit a clip",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=GenerateBody,
            answers={202: _ACCEPTED, 200: _CACHED},
            errors=(
                *_OF_ORDERS,
                *OF_KEYS,
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
    )


def _making_again(native: Native) -> tuple[Route, ...]:
    return (
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/regenerate",
            handler=native.regenerate,
            summary="Make a task like this one, with another seed and whatever the body changes",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=GenerateBody,
            is_body_partial=True,
            answers={202: _ACCEPTED, 200: _CACHED},
            errors=(
                *_OF_ORDERS,
                *OF_KEYS,
                errors.TaskNotFound,
                errors.QueueFull,
                errors.QuotaExceeded,
                errors.EnhancerUnavailable,
            ),
            parameters=(_TASK_ID, IDEMPOTENCY_KEY, _PREFER),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/retry",
            handler=native.retry,
            summary="Make a finished task once more, with the same seed, as a new task",
            permission=Scope.SUBMIT,
            is_creating=True,
            answers={202: _ACCEPTED},
            errors=(
                errors.TaskNotFound,
                errors.TaskStillLive,
                errors.InvalidRequest,
                errors.PermissionDenied,
                *OF_KEYS,
                errors.QueueFull,
                errors.QuotaExceeded,
                errors.ServiceUnavailable,
            ),
            parameters=(_TASK_ID, IDEMPOTENCY_KEY),
        ),
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
            parameters=(_TASK_ID,),
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
            parameters=(_TASK_ID,),
        ),
        Route(
            method="POST",
            path=f"{PREFIX}/tasks/{{task_id}}/run-next",
            handler=native.run_next,
            summary="Put a queued task before your other queued ones; other users lose nothing",
            permission=Scope.SUBMIT,
            answers={200: Answer(description="It is your next.", model=models.TaskStatus)},
            errors=(errors.TaskNotFound, errors.TaskNotQueued, errors.ServiceUnavailable),
            parameters=(_TASK_ID,),
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
                    description="The state.", model=models.TaskStatus, headers={**_PACE, **ETAG}
                ),
                304: UNCHANGED,
            },
            errors=(errors.TaskNotFound, errors.InvalidRequest, errors.ServiceUnavailable),
            parameters=(
                named("task_id", models.TASK_ID, place="query"),
                query(
                    "wait",
                    "Answer when something changed, after so many seconds at most.",
                    type="number",
                    minimum=0,
                    maximum=queries.WAIT_MAX_S,
                ),
                IF_NONE_MATCH,
            ),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/result/{{task_id}}",
            handler=native.result,
            summary="The finished result",
            permission=Scope.READ,
            answers={
                200: Answer(description="The result.", model=models.TaskResult, headers=ETAG),
                202: Answer(
                    description="Not finished; the state so far.",
                    model=models.TaskStatus,
                    headers=_PACE,
                ),
                304: UNCHANGED,
            },
            errors=(errors.TaskNotFound, errors.TaskFailed, errors.TaskCancelled),
            parameters=(_TASK_ID, IF_NONE_MATCH),
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
                200: Answer(description="A page.", model=models.TaskPage, headers=ETAG),
                304: UNCHANGED,
            },
            errors=(errors.InvalidRequest, errors.InvalidCursor),
            parameters=(*_list_parameters(), IF_NONE_MATCH),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/tasks/{{task_id}}/explain",
            handler=native.explain,
            summary="Why a clip is as it is: what decided its pixels, and where its time went",
            permission=Scope.READ,
            answers={
                200: Answer(description="The explanation.", model=models.Explanation, headers=ETAG),
                304: UNCHANGED,
            },
            errors=(errors.TaskNotFound, errors.ServiceUnavailable),
            parameters=(_TASK_ID, IF_NONE_MATCH),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/tasks/{{task_id}}",
            handler=native.task,
            summary="Everything about a task",
            permission=Scope.READ,
            answers={
                200: Answer(description="The task.", model=models.Task, headers=ETAG),
                304: UNCHANGED,
            },
            errors=(errors.TaskNotFound,),
            parameters=(_TASK_ID, IF_NONE_MATCH),
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/capabilities",
            handler=native.capabilities,
            summary="What this server can make",
            permission=Scope.READ,
            answers={
                200: Answer(description="Limits and model.", model=models.Capabilities),
                304: UNCHANGED,
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
            _TASK_ID,
            header("Last-Event-ID", "The last event you got; older ones are not repeated."),
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
        answers=FILE_ANSWERS,
        errors=(
            errors.TaskNotFound,
            errors.NotFound,
            errors.TaskFailed,
            errors.TaskCancelled,
            errors.RangeNotSatisfiable,
            errors.InvalidRequest,
        ),
        parameters=(_TASK_ID, *FILE_PARAMETERS),
    )


def _list_parameters() -> tuple[Mapping[str, Any], ...]:
    return (
        query("status", "Only these.", type="string", enum=list(WireStatus)),
        query("client_reference", "Only those you named so.", type="string"),
        query("created_after", "RFC 3339 or Unix seconds; inclusive.", type="string"),
        query("created_before", "The same; exclusive.", type="string"),
        query(
            "q",
            "In the prompt or the client reference, in whatever case.",
            type="string",
            maxLength=queries.TEXT_MAX_CHARS,
        ),
        query(
            "metadata.KEY",
            "Only those whose metadata has this value under KEY. Several must all match; "
            "a KEY with a quote or a backslash cannot be asked for.",
            type="string",
        ),
        query("order", "Newest first (`desc`, the default) or last.", enum=list(queries.ORDERS)),
        page_limit("Tasks"),
        query("cursor", "`next_cursor` of the page before, with the same filters.", type="string"),
    )
