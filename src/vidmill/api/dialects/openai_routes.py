"""The OpenAI dialect's table of routes. Literal paths stand before those with a parameter."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from vidmill.api.desk import Desk
from vidmill.api.dialects import openai_models as models
from vidmill.api.dialects.native_route_parts import OF_KEYS, REPLAYED
from vidmill.api.dialects.openai import VARIANTS, OpenAI
from vidmill.api.dialects.openai_errors import OpenAIError
from vidmill.api.dialects.openai_webhooks import OpenAIWebhooks
from vidmill.api.dialects.served import FILE_TYPES
from vidmill.api.repeats import PARAMETER as IDEMPOTENCY_KEY
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.permission import Scope

VIDEOS = "/v1/videos"
_VIDEO = f"{VIDEOS}/{{video_id}}"
WEBHOOKS = "/v1/webhook_endpoints"
_WEBHOOK = f"{WEBHOOKS}/{{webhook_endpoint_id}}"
PREFIXES = (VIDEOS, "/v1/models", WEBHOOKS, "/v1/webhook_event_types")

_POLL = {"openai-poll-after-ms": "Milliseconds to the next look, while the video is live."}
_OF_BODIES = (
    errors.InvalidRequest,
    errors.MalformedBody,
    errors.BodyTooLarge,
    errors.UnsupportedMediaType,
    errors.ServiceUnavailable,
)
_OF_CREATING = (*_OF_BODIES, *OF_KEYS, errors.QuotaExceeded, errors.QueueFull)
_SECRET = Answer(
    description="Its secret is shown here alone.",
    model=models.OpenAIWebhook,
    headers=REPLAYED,
)


def openai_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    videos, webhooks = OpenAI(desk), OpenAIWebhooks(desk)
    return (
        *_refusing(videos),
        *_making(videos),
        *_looking(videos),
        *_models(videos),
        *_endpoints(webhooks),
        *_endpoint(webhooks),
    )


def _route(
    method: str,
    path: str,
    handler: Callable[..., Any],
    summary: str,
    answer: type[BaseModel] | Answer,
    **more: Any,
) -> Route:
    ok = answer if isinstance(answer, Answer) else Answer(description="Done.", model=answer)
    parameters = [*_path_parameters(path), *more.pop("parameters", ())]
    return Route(
        method=method,
        path=path,
        handler=handler,
        summary=summary,
        permission=more.pop("permission", Scope.READ),
        answers={200: ok, **more.pop("answers", {})},
        errors=more.pop("errors", (errors.ServiceUnavailable,)),
        parameters=parameters,
        tag="openai",
        **more,
    )


def _making(videos: OpenAI) -> tuple[Route, ...]:
    video = Answer(
        description="The video.", model=models.OpenAIVideo, headers={**_POLL, **REPLAYED}
    )
    submit: Mapping[str, Any] = {"permission": Scope.SUBMIT, "is_creating": True}
    return (
        _route(
            "POST",
            VIDEOS,
            videos.create_video,
            "Make a video; the body is JSON or a form",
            video,
            body=models.OpenAIVideoRequest,
            errors=(*_OF_CREATING, errors.UnknownModel),
            parameters=(IDEMPOTENCY_KEY,),
            **submit,
        ),
        _route(
            "POST",
            f"{_VIDEO}/remix",
            videos.remix_video,
            "Make a video like this one, seed and all, of another prompt",
            video,
            body=models.OpenAIRemix,
            errors=(*_OF_CREATING, errors.TaskNotFound),
            parameters=(IDEMPOTENCY_KEY,),
            **submit,
        ),
        _route(
            "DELETE",
            _VIDEO,
            videos.delete_video,
            "Delete a video; one that is being made is stopped",
            models.OpenAIDeleted,
            permission=Scope.SUBMIT,
            errors=(errors.TaskNotFound, errors.ServiceUnavailable),
        ),
    )


def _looking(videos: OpenAI) -> tuple[Route, ...]:
    return (
        _route(
            "GET",
            VIDEOS,
            videos.list_videos,
            "The videos, page by page",
            models.OpenAIVideoList,
            errors=(errors.InvalidRequest, errors.TaskNotFound, errors.ServiceUnavailable),
            parameters=(
                _query("after", type="string"),
                _query("limit", type="integer", minimum=1, maximum=100, default=20),
                _query("order", type="string", enum=["asc", "desc"], default="desc"),
            ),
        ),
        _route(
            "GET",
            _VIDEO,
            videos.retrieve_video,
            "How a video stands",
            Answer(description="The video.", model=models.OpenAIVideo, headers=_POLL),
            answers={304: Answer(description="Nothing changed.", media_type="")},
            errors=(errors.TaskNotFound, errors.ServiceUnavailable),
        ),
        _route(
            "GET",
            f"{_VIDEO}/content",
            videos.video_content,
            "Download a video, its poster or its animated preview",
            Answer(description="The file.", media_type=FILE_TYPES),
            answers={
                206: Answer(description="The part you asked for.", media_type=FILE_TYPES),
                302: Answer(description="Where the store serves it.", media_type=""),
                304: Answer(description="Nothing changed.", media_type=""),
            },
            errors=(
                errors.TaskNotFound,
                errors.TaskNotCompleted,
                errors.TaskFailed,
                errors.InvalidRequest,
                errors.RangeNotSatisfiable,
                errors.ServiceUnavailable,
            ),
            parameters=(_query("variant", type="string", enum=list(VARIANTS)),),
        ),
    )


def _models(videos: OpenAI) -> tuple[Route, ...]:
    return (
        _route("GET", "/v1/models", videos.list_models, "The models", models.OpenAIModelList),
        _route(
            "GET",
            "/v1/models/{model:path}",
            videos.retrieve_model,
            "One model",
            models.OpenAIModel,
            errors=(errors.UnknownModel,),
        ),
    )


def _refusing(videos: OpenAI) -> tuple[Route, ...]:
    """Return the routes of what is not done here, so that a client is told why."""
    refused = Answer(description="Always.", model=OpenAIError)
    return tuple(
        Route(
            method=method,
            path=path,
            handler=handler,
            summary="Refused: videos are made from text alone",
            permission=Scope.READ if method == "GET" else Scope.SUBMIT,
            answers={400: refused},
            errors=(errors.UnsupportedOperation, errors.BodyTooLarge),
            parameters=_path_parameters(path),
            tag="openai",
        )
        for method, path, handler in (
            ("POST", f"{VIDEOS}/edits", videos.edit_video),
            ("POST", f"{VIDEOS}/extensions", videos.extend_video),
            ("POST", f"{VIDEOS}/characters", videos.create_character),
            ("GET", f"{VIDEOS}/characters/{{character_id}}", videos.retrieve_character),
        )
    )


def _endpoints(webhooks: OpenAIWebhooks) -> tuple[Route, ...]:
    return (
        _route(
            "POST",
            WEBHOOKS,
            webhooks.create_endpoint,
            "Make a webhook endpoint; its secret is shown now",
            _SECRET,
            permission=Scope.ADMIN,
            is_creating=True,
            body=models.OpenAIWebhookRequest,
            errors=_OF_CREATING,
            parameters=(IDEMPOTENCY_KEY,),
        ),
        _route(
            "GET",
            WEBHOOKS,
            webhooks.list_endpoints,
            "The webhook endpoints",
            models.OpenAIWebhookList,
            permission=Scope.ADMIN,
            errors=(errors.InvalidRequest, errors.WebhookNotFound, errors.ServiceUnavailable),
            parameters=(
                _query("after", type="string"),
                _query("limit", type="integer", minimum=1, maximum=100, default=20),
            ),
        ),
        _route(
            "GET",
            "/v1/webhook_event_types",
            webhooks.list_event_types,
            "What an endpoint can be told of",
            models.OpenAIEventTypes,
            permission=Scope.ADMIN,
        ),
    )


def _endpoint(webhooks: OpenAIWebhooks) -> tuple[Route, ...]:
    admin: Mapping[str, Any] = {"permission": Scope.ADMIN}
    missing = (errors.WebhookNotFound, errors.UnsupportedOperation)
    return (
        _route(
            "GET",
            _WEBHOOK,
            webhooks.retrieve_endpoint,
            "One endpoint",
            models.OpenAIWebhook,
            errors=(errors.WebhookNotFound, errors.ServiceUnavailable),
            **admin,
        ),
        _route(
            "POST",
            _WEBHOOK,
            webhooks.update_endpoint,
            "Change an endpoint",
            models.OpenAIWebhook,
            body=models.OpenAIWebhookRequest,
            is_body_partial=True,
            errors=(*_OF_BODIES, *missing),
            **admin,
        ),
        _route(
            "DELETE",
            _WEBHOOK,
            webhooks.delete_endpoint,
            "Delete an endpoint",
            models.OpenAIWebhookDeleted,
            errors=(*missing, errors.ServiceUnavailable),
            **admin,
        ),
        _route(
            "POST",
            f"{_WEBHOOK}/rotate_secret",
            webhooks.rotate_endpoint_secret,
            "Give an endpoint another secret",
            _SECRET,
            is_creating=True,
            body=models.OpenAIRotation,
            is_body_partial=True,
            errors=(*_OF_BODIES, *OF_KEYS, errors.WebhookNotFound),
            parameters=(IDEMPOTENCY_KEY,),
            **admin,
        ),
        _route(
            "POST",
            f"{_WEBHOOK}/test",
            webhooks.test_endpoint,
            "Send a sample now",
            models.OpenAIWebhookTest,
            is_creating=True,
            body=models.OpenAITestRequest,
            errors=(*_OF_BODIES, *missing, errors.WebhookDisabled),
            **admin,
        ),
    )


def _query(name: str, **schema: Any) -> Mapping[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _path_parameters(path: str) -> list[Mapping[str, Any]]:
    names = [part.partition(":")[0] for part in path.replace("}", "{").split("{")[1::2]]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
