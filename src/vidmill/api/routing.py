"""Routes as data: path, handler, and all that the reference says about it."""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette import routing
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from vidmill.api.auth import Gate
from vidmill.api.edge import Endpoint, Exact
from vidmill.api.errors import EXAMPLE_ID, KINDS, UNEXPECTED, Asked, ErrorStyle, example_of
from vidmill.api.throttling import Throttle
from vidmill.domain.errors import (
    BodyTooSlow,
    InternalError,
    PermissionDenied,
    RateLimited,
    Unauthorized,
    VidmillError,
)
from vidmill.domain.permission import Scope

REF = "#/components/schemas/{model}"
"""Where the reference keeps the shapes that others refer to."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One way in which a route succeeds. `model` None = not JSON, but one of `media_type`."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One operation.

    Attributes:
        handler: `(request, caller)`, or `(request)` where all may; plain ones run in a thread.
        permission: What a key must be made for; None = open to all, without a key.
        is_creating: It makes or charges something, and counts against the rate of submits.
        parameters: OpenAPI parameter objects.
        body: Schema of the JSON body.
        also_bodies: Schemas of bodies that are not JSON, by media type.
        is_body_partial: Any of its fields, or the whole body, may be left out.
        also_paths: Further spellings of the path that clients use; the reference leaves them out.
        body_max_bytes: Largest body, where the path has no parameters; None = the server's.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    summary: str
    permission: Scope | None
    answers: Mapping[int, Answer]
    errors: Sequence[type[VidmillError]] = ()
    parameters: Sequence[Mapping[str, Any]] = ()
    body: type[BaseModel] | None = None
    also_bodies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_body_partial: bool = False
    body_max_bytes: int | None = None
    is_creating: bool = False
    also_head: bool = False
    also_paths: Sequence[str] = ()
    tag: str = "native"


class DirectRoute(routing.Route):
    """One method of one path and its bare handler.

    FastAPI's dependency and response machinery costs as much as our whole status handler, and its
    routes cost 10 ms each to make; see `described` for those, which only the reference needs.
    """

    def __init__(self, method: str, path: str, endpoint: Endpoint) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.methods = {method}  # Starlette lets every GET answer HEAD too

    def matches(
        self, scope: MutableMapping[str, Any]
    ) -> tuple[routing.Match, MutableMapping[str, Any]]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}  # by which requests are counted


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What stands before every route that is not open."""

    gate: Gate
    throttle: Throttle

    def before(self, route: Route) -> Endpoint:
        """Return the endpoint of *route*: the key first, then its scope, then its rate."""
        handler, scope = _awaitable(route.handler), route.permission
        if scope is None:
            return handler

        async def admitted(request: Request) -> Response:
            caller = await self.gate.admit(request)
            caller.require(scope)
            await self.throttle.admit(caller, request.scope, is_creating=route.is_creating)
            answer: Response = await handler(request, caller)
            return answer

        return admitted


def add_routes(router: APIRouter, routes: Sequence[Route], guard: Guard) -> dict[Exact, Endpoint]:
    """Put *routes* on *router*, behind *guard*.

    Returns:
        The endpoints of paths without parameters, by method and path.
    """
    exact: dict[Exact, Endpoint] = {}
    for route in routes:
        endpoint = guard.before(route)
        methods = [route.method, *(["HEAD"] if route.also_head else [])]
        ways = [(method, route.path) for method in methods]
        ways += [(route.method, path) for path in route.also_paths]
        router.routes += [DirectRoute(method, path, endpoint) for method, path in ways]
        if "{" not in route.path:
            exact[route.method, route.path] = endpoint
    return exact


def described(routes: Sequence[Route], errors: ErrorStyle) -> list[BaseRoute]:
    """Return *routes* as FastAPI describes them; *errors* says how theirs look."""
    router = APIRouter()
    for route in routes:
        name = route.handler.__name__
        router.add_api_route(
            route.path,
            _nothing,
            methods=[route.method],
            name=name,
            operation_id=name if route.tag == "native" else f"{route.tag}_{name}",
            summary=route.summary,
            tags=[route.tag],
            status_code=next(iter(route.answers)),
            response_model=None,
            response_class=Response,
            responses=_responses(route, errors),
            openapi_extra=_extra(route),
        )
    return router.routes


def _nothing() -> None:
    # Stands for a handler: FastAPI would describe the arguments and the docstring of a real one.
    return None


def _awaitable(handler: Callable[..., Any]) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(handler):
        return handler

    async def in_thread(*arguments: Any) -> Response:
        return await run_in_threadpool(handler, *arguments)

    return in_thread


def _responses(route: Route, style: ErrorStyle) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        status: _answer(answer) for status, answer in route.answers.items()
    }
    guards: list[type[VidmillError]] = []
    if route.permission is not None:
        guards = [Unauthorized, PermissionDenied, RateLimited]
    if route.body is not None or route.also_bodies:
        guards.append(BodyTooSlow)
    for kind in dict.fromkeys([*guards, *route.errors]):
        error = example_of(kind)
        look = style.look(error, Asked(route.method, route.path, EXAMPLE_ID))
        entry = found.setdefault(look.status, {"description": KINDS[kind].title, "content": {}})
        schema = entry.setdefault("content", {}).setdefault(style.media_type, _error_schema(style))
        schema["examples"][kind.code] = {"value": look.body}
        if look.headers:
            entry["headers"] = {name: _header(name) for name in look.headers}
    mishap = style.look(InternalError(UNEXPECTED.title), Asked(route.method, route.path, ""))
    found.setdefault(
        mishap.status,
        {"description": UNEXPECTED.title, "content": {style.media_type: _error_schema(style)}},
    )
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    entry: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        entry["model"] = answer.model
    elif answer.media_type:
        entry["content"] = {name: _text_schema(name) for name in answer.media_type.split(", ")}
    headers = {"X-Request-ID": "Names this request in our logs.", **answer.headers}
    entry["headers"] = {name: _header(text) for name, text in headers.items()}
    return entry


def _text_schema(media_type: str) -> dict[str, Any]:
    """Return the schema of what is no JSON; a stream of events has none that tools agree on."""
    return {} if media_type == "text/event-stream" else {"schema": {"type": "string"}}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _error_schema(style: ErrorStyle) -> dict[str, Any]:
    name = style.model.__name__
    return {"schema": {"$ref": f"#/components/schemas/{name}"}, "examples": {}}


def _extra(route: Route) -> dict[str, Any]:
    extra: dict[str, Any] = {"parameters": list(route.parameters)}
    if route.permission is not None:
        extra["security"] = [{"apiKey": []}]
    return extra


def request_body(route: Route) -> dict[str, Any]:
    """Return what the reference says of the body.

    Made when the reference is asked for: it takes longer than all else that a route needs.
    """
    bodies = dict(route.also_bodies)
    if route.body is not None:
        schema = route.body.model_json_schema(ref_template=REF)
        if route.is_body_partial:
            schema.pop("required", None)
        bodies = {"application/json": schema, **bodies}
    return {
        "required": not route.is_body_partial,
        "content": {name: {"schema": shape} for name, shape in bodies.items()},
    }
