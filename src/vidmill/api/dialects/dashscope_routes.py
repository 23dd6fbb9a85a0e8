"""The DashScope dialect's table of routes."""

from collections.abc import Sequence
from dataclasses import replace

from vidmill.api.desk import Desk
from vidmill.api.dialects import dashscope_models as models
from vidmill.api.dialects.dashscope import DashScope
from vidmill.api.dialects.dashscope_errors import DashScopeError
from vidmill.api.dialects.native_route_parts import REPLAYED
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.permission import Scope

PREFIX = "/api/v1"
_SERVICES = f"{PREFIX}/services/aigc"
_TASK = f"{PREFIX}/tasks/{{task_id}}"

_TASK_ID = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}}
_ASYNC = {
    "name": "X-DashScope-Async",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "enum": ["enable"]},
}
_LIST_PARAMETERS = tuple(
    {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
    for name, text in (
        ("page_no", "From 1."),
        ("page_size", "1 to 100; absent = 10."),
        ("status", "PENDING, RUNNING, SUCCEEDED, FAILED or CANCELED."),
        ("start_time", "Submitted at or after: `YYYYMMDDhhmmss` in UTC, or RFC 3339."),
        ("end_time", "Submitted before."),
        ("model_name", "Another model than the one served has no tasks."),
    )
)


def dashscope_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    dialect = DashScope.at(desk)
    return (*_making(dialect), *_looking(dialect), *_refusing(dialect))


def _making(dialect: DashScope) -> tuple[Route, ...]:
    task = Answer(description="The task's id and state.", model=models.DashScopeTask)
    return (
        Route(
            method="POST",
            path=f"{_SERVICES}/video-generation/video-synthesis",
            handler=dialect.submit,
            summary="Submit a clip",
            permission=Scope.SUBMIT,
            is_creating=True,
            body=models.DashScopeSubmit,
            answers={200: replace(task, headers=REPLAYED)},
            errors=(
                errors.InvalidRequest,
                errors.MalformedBody,
                errors.BodyTooLarge,
                errors.UnsupportedMediaType,
                errors.UnknownModel,
                errors.IdempotencyKeyReused,
                errors.IdempotencyInProgress,
                errors.QuotaExceeded,
                errors.QueueFull,
                errors.ServiceUnavailable,
            ),
            parameters=(_ASYNC, IDEMPOTENCY_KEY),
            tag="dashscope",
        ),
        Route(
            method="POST",
            path=f"{_TASK}/cancel",
            also_paths=(f"{_TASK}/cancel/",),
            handler=dialect.cancel,
            summary="Cancel a task that waits",
            permission=Scope.SUBMIT,
            answers={200: task},
            errors=(errors.UnsupportedOperation, errors.ServiceUnavailable),
            parameters=(_TASK_ID,),
            tag="dashscope",
        ),
    )


def _looking(dialect: DashScope) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=_TASK,
            also_paths=(f"{_TASK}/",),
            handler=dialect.task,
            summary="How a task stands; one that is not there is UNKNOWN",
            permission=Scope.READ,
            answers={200: Answer(description="The state.", model=models.DashScopeTask)},
            errors=(errors.ServiceUnavailable,),
            parameters=(_TASK_ID,),
            tag="dashscope",
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/tasks",
            also_paths=(f"{PREFIX}/tasks/",),
            handler=dialect.tasks,
            summary="The tasks, newest first, by page number",
            permission=Scope.READ,
            answers={200: Answer(description="A page.", model=models.DashScopeList)},
            errors=(errors.InvalidRequest, errors.ServiceUnavailable),
            parameters=_LIST_PARAMETERS,
            tag="dashscope",
        ),
    )


def _refusing(dialect: DashScope) -> tuple[Route, ...]:
    """Return the routes of what is not done here, so that a client is told why."""
    return (
        Route(
            method="POST",
            path=f"{_SERVICES}/image2video/video-synthesis",
            handler=dialect.from_images,
            summary="Refused: clips are made from text alone",
            permission=Scope.SUBMIT,
            answers={400: Answer(description="Always.", model=DashScopeError)},
            errors=(errors.InvalidRequest,),
            tag="dashscope",
        ),
        Route(
            method="GET",
            path=f"{PREFIX}/uploads",
            handler=dialect.upload_policy,
            summary="Refused: clips are made from text alone",
            permission=Scope.READ,
            answers={400: Answer(description="Always.", model=DashScopeError)},
            errors=(errors.InvalidRequest,),
            tag="dashscope",
        ),
    )
