"""The ASGI application: every route of every dialect, one edge around them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import vidmill
from vidmill.api.desk import Desk
from vidmill.api.dialects import DIALECTS, Dialect, style_of
from vidmill.api.dialects.native_routes import native_sockets
from vidmill.api.edge import Edge, Endpoint, Exact
from vidmill.api.errors import NATIVE, ErrorStyle, handle_http
from vidmill.api.file_routes import file_routes
from vidmill.api.health import health_routes
from vidmill.api.routing import REF, Guard, Route, add_routes, described, request_body
from vidmill.wiring import App

_OURS = (
    Dialect(prefixes=(), routes=file_routes, errors=NATIVE),
    Dialect(prefixes=(), routes=health_routes, errors=NATIVE),
)
"""Routes that belong to no wire format."""


def create_app(app: App) -> FastAPI:
    """Return the API over *app*, which the caller closes after the server has stopped."""
    desk = Desk.of(app)
    api = FastAPI(
        title="Vidmill",
        version=vidmill.__version__,
        description="A self-hosted video factory: submit, query, deliver, lose nothing.",
        docs_url=None,  # its page would fetch scripts from other people's servers; see docs/api.md
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda _api: _lifespan(desk),
    )
    guard = Guard(gate=desk.gate, throttle=desk.throttle)
    tables: list[tuple[Sequence[Route], ErrorStyle]] = []
    exact: dict[Exact, Endpoint] = {}
    body_limits: dict[Exact, int] = {}
    for dialect in (*DIALECTS, *_OURS):
        routes = dialect.routes(desk)
        tables.append((routes, dialect.errors))
        exact |= add_routes(api.router, routes, guard)
        body_limits |= {(r.method, r.path): r.body_max_bytes for r in routes if r.body_max_bytes}
    api.add_exception_handler(
        HTTPException,
        lambda request, error: handle_http(request, error, style_of(request.scope["path"])),
    )
    for path, socket in native_sockets(desk):
        api.router.add_websocket_route(path, socket)
    api.add_middleware(
        Edge,
        body_max_bytes=app.settings.body_max_bytes,
        body_limits=body_limits,
        body_wait_s=app.settings.body_wait_s,
        exact=exact,
        style_of=style_of,
        load=desk.load,
        meter=desk.meter,
    )
    _describe(api, tables)
    return api


@asynccontextmanager
async def _lifespan(desk: Desk) -> AsyncIterator[None]:
    # Listens to events from the start, not at the first request, which would wait for the broker.
    await run_in_threadpool(desk.app.bus.latest, "")
    yield
    desk.reads.close()


def _describe(api: FastAPI, tables: Sequence[tuple[Sequence[Route], ErrorStyle]]) -> None:
    """Make the reference when it is asked for: FastAPI's, and what that cannot know.

    That is: bodies, shapes of errors, the Bearer key.
    """

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            doc = get_openapi(
                title=api.title,
                version=api.version,
                description=api.description,
                routes=[shown for table, style in tables for shown in described(table, style)],
            )
            parts = doc.setdefault("components", {})
            schemas = parts.setdefault("schemas", {})
            for style in {dialect.errors.model: dialect.errors for dialect in DIALECTS}.values():
                shape = style.model.model_json_schema(ref_template=REF)
                schemas.update(shape.pop("$defs", {}), **{style.model.__name__: shape})
            for route in chain.from_iterable(table for table, _ in tables):
                if route.body is not None or route.also_bodies:
                    body = request_body(route)
                    # What the schema of a body refers to lies in it, and not where it says.
                    for content in body["content"].values():
                        schemas.update(content["schema"].pop("$defs", {}))
                    doc["paths"][route.path][route.method.lower()]["requestBody"] = body
            parts["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
            api.openapi_schema = doc
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
