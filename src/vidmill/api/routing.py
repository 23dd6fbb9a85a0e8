"""Routes as data: path, handler, and all that the reference says about it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.auth import Gate
from vidmill.api.edge import Endpoint, Exact
from vidmill.api.errors import KINDS, MEDIA_TYPE, UNEXPECTED, problem
from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    RangeNotSatisfiable,
    Unauthorized,
    VidmillError,
)
from vidmill.services.access import Caller

Handler = Callable[[Request, Caller], Any]

EXAMPLE_ID = "req_0f3c5a"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One way in which a route succeeds. `model` None = not JSON."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One operation.

    Attributes:
        handler: `(request, caller)`, or `(request)` where `is_open`; plain ones run in a thread.
        parameters: OpenAPI parameter objects.
        body: Schema of the JSON body.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    summary: str
    answers: Mapping[int, Answer]
    errors: Sequence[type[VidmillError]] = ()
    parameters: Sequence[Mapping[str, Any]] = ()
    body: type[BaseModel] | None = None
    is_open: bool = False
    also_head: bool = False
    tag: str = "native"


class DirectRoute(APIRoute):
    """An APIRoute for the reference, a bare handler when it runs.

    FastAPI's dependency and response machinery costs as much as our whole status handler; the
    handlers here read the request and make the response themselves.
    """

    def get_route_handler(self) -> Endpoint:
        return _direct(self.endpoint)


def add_routes(router: APIRouter, routes: Sequence[Route], gate: Gate) -> dict[Exact, Endpoint]:
    """Put *routes* on *router*; those that are not open ask *gate* first.

    Returns:
        The endpoints of paths without parameters, by method and path.
    """
    exact: dict[Exact, Endpoint] = {}
    for route in routes:
        endpoint = route.handler if route.is_open else _guarded(route.handler, gate)
        if route.also_head:
            router.add_route(route.path, _direct(endpoint), methods=["HEAD"])
        router.add_api_route(
            route.path,
            endpoint,
            methods=[route.method],
            name=route.handler.__name__,
            operation_id=route.handler.__name__,
            summary=route.summary,
            tags=[route.tag],
            status_code=next(iter(route.answers)),
            response_model=None,
            response_class=Response,
            responses=_responses(route),
            openapi_extra=_extra(route),
            route_class_override=DirectRoute,
        )
        if "{" not in route.path:
            exact[route.method, route.path] = _direct(endpoint)
    return exact


def _direct(endpoint: Callable[..., Any]) -> Endpoint:
    if asyncio.iscoroutinefunction(endpoint):
        return endpoint

    async def in_thread(request: Request) -> Response:
        return await run_in_threadpool(endpoint, request)

    return in_thread


def _guarded(handler: Handler, gate: Gate) -> Callable[[Request], Any]:
    if asyncio.iscoroutinefunction(handler):

        async def admitted(request: Request) -> Response:
            answer: Response = await handler(request, await gate.admit_soon(request))
            return answer

        return admitted

    def admitted_in_thread(request: Request) -> Response:
        answer: Response = handler(request, gate.admit(request))
        return answer

    return admitted_in_thread


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        status: _answer(answer) for status, answer in route.answers.items()
    }
    guards: list[type[VidmillError]] = [] if route.is_open else [Unauthorized]
    for kind in [*guards, *route.errors]:
        status = KINDS[kind].status
        entry = found.setdefault(status, {"description": KINDS[kind].title, "content": {}})
        examples = entry["content"].setdefault(MEDIA_TYPE, _problem_schema())["examples"]
        examples[kind.code] = {"value": _example(kind)}
        if headers := KINDS[kind].headers:
            entry["headers"] = {name: _header(name) for name in headers}
    found[500] = {"description": UNEXPECTED.title, "content": {MEDIA_TYPE: _problem_schema()}}
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    entry: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        entry["model"] = answer.model
    elif answer.media_type:
        entry["content"] = {answer.media_type: {"schema": {"type": "string"}}}
    headers = {"X-Request-ID": "Names this request in our logs.", **answer.headers}
    entry["headers"] = {name: _header(text) for name, text in headers.items()}
    return entry


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _problem_schema() -> dict[str, Any]:
    return {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}


def _example(kind: type[VidmillError]) -> dict[str, Any]:
    if issubclass(kind, InvalidRequest):
        wrong = FieldProblem(
            pointer="#/prompt",
            code="max_length",
            message="it has 201 characters, the limit is 200; shorten it",
            limit=200,
        )
        return problem(kind([wrong]), request_id=EXAMPLE_ID)
    if issubclass(kind, RangeNotSatisfiable):
        return problem(kind(1_000_000), request_id=EXAMPLE_ID)
    return problem(kind(KINDS[kind].title), request_id=EXAMPLE_ID)


def _extra(route: Route) -> dict[str, Any]:
    extra: dict[str, Any] = {"parameters": list(route.parameters)}
    if not route.is_open:
        extra["security"] = [{"apiKey": []}]
    if route.body is not None:
        schema = route.body.model_json_schema(ref_template="#/components/schemas/{model}")
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return extra
