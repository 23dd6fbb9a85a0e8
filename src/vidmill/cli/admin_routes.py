"""`vidmill admin route`: which pools a class of workers serves."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.admin_shown import Name, show_read, show_written
from vidmill.cli.options import Json

if TYPE_CHECKING:
    from vidmill.store.routes import Route
    from vidmill.store.session import Connection, UnitOfWork


def route_set(
    context: typer.Context,
    worker_class: Name,
    pools: Annotated[
        list[str] | None,
        typer.Argument(
            help="POOL, or POOL:WAIT_S to help one only where tasks waited so long; none = forget.",
            show_default=False,
        ),
    ] = None,
    *,
    is_json: Json = False,
) -> None:
    """Say which pools a class of workers serves, first choice first; workers heed it at start."""
    routes = [_route_of(text) for text in pools or ()]
    if routes and not any(route.min_wait_s == 0 for route in routes):
        raise typer.BadParameter("name at least one pool without a wait", param_hint="POOLS")

    def save(uow: "UnitOfWork") -> dict[str, Any]:
        from vidmill.store import routes as store

        store.save_class(uow, worker_class, routes)
        return _route_line(worker_class, routes)

    show_written(context, save, is_json=is_json)


def route_list(context: typer.Context, *, is_json: Json = False) -> None:
    """List the classes of workers and the pools they serve."""

    def read(conn: "Connection") -> list[dict[str, Any]]:
        from vidmill.store import routes

        return [_route_line(name, found) for name, found in routes.all_classes(conn).items()]

    show_read(context, read, is_json=is_json)


def _route_of(text: str) -> "Route":
    from vidmill.store.routes import Route

    pool, _, wait = text.partition(":")
    try:
        route = Route(pool=pool, min_wait_s=float(wait or 0.0))
    except ValueError:
        route = Route(pool="", min_wait_s=-1.0)
    if not route.pool or not 0.0 <= route.min_wait_s < float("inf"):
        raise typer.BadParameter(f"{text!r} is no route; write POOL or POOL:WAIT_S, as vip:20")
    return route


def _route_line(worker_class: str, routes: "Sequence[Route]") -> dict[str, Any]:
    return {"class": worker_class, "pools": [asdict(route) for route in routes]}
