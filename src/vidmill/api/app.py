"""The ASGI application: every route of every dialect, one edge around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import vidmill
from vidmill.api.desk import Desk
from vidmill.api.dialects import DIALECTS
from vidmill.api.dialects.native_models import Problem
from vidmill.api.dialects.native_routes import native_sockets
from vidmill.api.edge import Edge
from vidmill.api.errors import handle_http
from vidmill.api.file_routes import file_routes
from vidmill.api.health import health_routes
from vidmill.api.routing import add_routes
from vidmill.wiring import App


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
    tables = (*DIALECTS, file_routes, health_routes)
    routes = [route for table in tables for route in table(desk)]
    exact = add_routes(api.router, routes, desk.gate)
    api.add_exception_handler(HTTPException, handle_http)
    for path, socket in native_sockets(desk):
        api.router.add_websocket_route(path, socket)
    api.add_middleware(
        Edge,
        body_max_bytes=app.settings.body_max_bytes,
        exact=exact,
        load=desk.load,
        meter=desk.meter,
    )
    _describe(api)
    return api


@asynccontextmanager
async def _lifespan(desk: Desk) -> AsyncIterator[None]:
    # Listens to events from the start, not at the first request, which would wait for the broker.
    await run_in_threadpool(desk.app.bus.latest, "")
    yield
    desk.reads.close()


def _describe(api: FastAPI) -> None:
    """Add to the reference what FastAPI cannot know: problem details and the Bearer key."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            doc = get_openapi(
                title=api.title,
                version=api.version,
                description=api.description,
                routes=api.routes,
            )
            parts = doc.setdefault("components", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            nested = problem.pop("$defs", {})
            parts.setdefault("schemas", {}).update({"Problem": problem, **nested})
            parts["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
            api.openapi_schema = doc
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
