"""`vidmill admin`: plans, tenants, keys and routes, written straight into the database."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, Exit, Terminal, reported
from vidmill.cli.running import settings_of, starting

if TYPE_CHECKING:
    from vidmill.store.routes import Route
    from vidmill.store.session import Connection, Database, UnitOfWork

T = TypeVar("T")

LANES = ("vip", "standard", "batch")

Name = Annotated[str, typer.Argument(show_default=False)]
Plan = Annotated[str | None, typer.Option(help="Its plan from now on.")]
User = Annotated[str, typer.Option(help="Whose key it is; made if new.")]


def plan_set(
    context: typer.Context,
    name: Name,
    *,
    lane: Annotated[
        str | None, typer.Option(help="Best lane its tasks may take: vip, standard or batch.")
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="Pool of its tasks; the first named counts.")
    ] = None,
    weight: Annotated[float | None, typer.Option(min=0.001, help="Share of GPU time.")] = None,
    cap_running: Annotated[int | None, typer.Option(min=0, help="Tasks at once.")] = None,
    cap_queued: Annotated[int | None, typer.Option(min=0, help="Tasks that may wait.")] = None,
    cached_price_percent: Annotated[
        int | None, typer.Option(min=0, max=100, help="Price of a clip from the cache.")
    ] = None,
    is_json: Json = False,
) -> None:
    """Make a plan, or change what is named of one; its tenants have it at once."""
    given = {
        "lane": _lane_of(lane),
        "pools": tuple(pool) if pool else None,
        "weight": weight,
        "cap_running": cap_running,
        "cap_queued": cap_queued,
        "cached_price_percent": cached_price_percent,
    }
    changes = {key: value for key, value in given.items() if value is not None}

    def save(uow: "UnitOfWork") -> dict[str, Any]:
        from vidmill.store import accounts

        known = accounts.find_plan(uow.conn, name) or accounts.Plan(name=name)
        plan = replace(known, **changes)
        accounts.save_plan(uow, plan)
        return _plan_line(plan)

    _show_written(context, save, is_json=is_json)


def plan_list(context: typer.Context, *, is_json: Json = False) -> None:
    """List the plans."""

    def read(conn: "Connection") -> list[dict[str, Any]]:
        from vidmill.store import accounts

        return [_plan_line(plan) for plan in accounts.all_plans(conn)]

    _show_read(context, read, is_json=is_json)


def tenant_set(
    context: typer.Context, name: Name, *, plan: Plan = None, is_json: Json = False
) -> None:
    """Make a tenant, or give one another plan."""

    def save(uow: "UnitOfWork") -> dict[str, Any]:
        from vidmill.store import accounts

        accounts.ensure_tenant(uow, name, plan=plan)
        return next(line for line in _tenant_lines(uow.conn) if line["tenant"] == name)

    _show_written(context, save, is_json=is_json)


def tenant_list(context: typer.Context, *, is_json: Json = False) -> None:
    """List the tenants, with what they have queued and running."""
    _show_read(context, _tenant_lines, is_json=is_json)


def key_create(
    context: typer.Context,
    tenant: Name,
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "made by vidmill admin",
    user: User = "default",
    is_json: Json = False,
) -> None:
    """Make an API key and show it, once: only its hash is kept."""
    term = terminal(context, is_json=is_json)
    with reported(term), _database() as db:
        from vidmill.services.access import hash_key
        from vidmill.stack.keys import new_key

        key = new_key()

        def save(uow: "UnitOfWork") -> int:
            from vidmill.store import accounts

            tenant_id = _tenant_id(uow.conn, tenant)
            owner = accounts.ensure_user(uow, tenant_id, user)
            return accounts.create_key(uow, tenant_id, name, hash_key(key), owner.id).id

        key_id = db.write(save)
        if is_json:
            term.document({"id": key_id, "tenant": tenant, "user": user, "api_key": key})
        else:
            term.out.print(key, markup=False)
            term.note(f"key {key_id} of {tenant}; it is shown only now")


def key_list(context: typer.Context, tenant: Name, *, is_json: Json = False) -> None:
    """List a tenant's keys; the keys themselves are kept nowhere."""

    def read(conn: "Connection") -> list[dict[str, Any]]:
        from vidmill.store import accounts

        keys = accounts.all_keys(conn, _tenant_id(conn, tenant))
        return [{"id": key.id, "name": key.name, "made": _instant(key.created_at)} for key in keys]

    _show_read(context, read, is_json=is_json)


def key_revoke(
    context: typer.Context,
    key_id: Annotated[int, typer.Argument(help="Its id in `key list`.", show_default=False)],
) -> None:
    """Take a key out of use; servers may know it for five seconds more."""
    term = terminal(context, is_json=False)
    with reported(term), _database() as db:
        from vidmill.store import accounts

        if not db.write(lambda uow: accounts.revoke_key(uow, key_id)):
            raise CommandError(f"there is no key {key_id}; see `vidmill admin key list TENANT`")
        term.note(f"key {key_id} is out of use")


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

    _show_written(context, save, is_json=is_json)


def route_list(context: typer.Context, *, is_json: Json = False) -> None:
    """List the classes of workers and the pools they serve."""

    def read(conn: "Connection") -> list[dict[str, Any]]:
        from vidmill.store import routes

        return [_route_line(name, found) for name, found in routes.all_classes(conn).items()]

    _show_read(context, read, is_json=is_json)


COMMANDS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "plan": (plan_set, plan_list),
    "tenant": (tenant_set, tenant_list),
    "key": (key_create, key_list, key_revoke),
    "route": (route_set, route_list),
}
"""The functions are named `<noun>_<verb>`."""


def register(app: typer.Typer) -> None:
    admin = typer.Typer(help="Plans, tenants, keys and routes of a cluster.", no_args_is_help=True)
    for noun, commands in COMMANDS.items():
        group = typer.Typer(help=f"{noun.capitalize()}s.", no_args_is_help=True)
        for command in commands:
            group.command(command.__name__.partition("_")[2])(command)
        admin.add_typer(group, name=noun)
    app.add_typer(admin, name="admin", rich_help_panel="A cluster")


@contextlib.contextmanager
def _database() -> "Iterator[Database]":
    """Open the database that the environment names, at this program's schema."""
    settings = settings_of({})
    from vidmill import wiring
    from vidmill.store.session import open_database

    with starting(settings):
        wiring.check_schema(settings)
        db = open_database(settings.effective_database_url, connections=2)
        try:
            yield db
        finally:
            db.close()


def _show_read(
    context: typer.Context,
    read: "Callable[[Connection], list[dict[str, Any]]]",
    *,
    is_json: bool,
) -> None:
    term = terminal(context, is_json=is_json)
    with reported(term), _database() as db:
        _show(term, db.read(read))


def _show_written(
    context: typer.Context, save: "Callable[[UnitOfWork], dict[str, Any]]", *, is_json: bool
) -> None:
    term = terminal(context, is_json=is_json)
    with reported(term), _database() as db:
        _show(term, [db.write(save)])


def _show(term: Terminal, lines: Sequence[dict[str, Any]]) -> None:
    """Print *lines* as a table, or as JSON, where values keep their types."""
    if term.is_json:
        term.document(list(lines))
        return
    if not lines:
        term.note("none yet")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, value in lines[0].items():
        table.add_column(
            name.replace("_", " "), justify="right" if isinstance(value, int | float) else "left"
        )
    for line in lines:
        table.add_row(*(escape(_cell(value)) for value in line.values()))
    term.out.print(table)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "(none)"
    if isinstance(value, dict):  # a route
        wait_s = value["min_wait_s"]
        return f"{value['pool']} after {wait_s:g} s" if wait_s else str(value["pool"])
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plan_line(plan: Any) -> dict[str, Any]:
    shown = asdict(plan)
    lane, pools = LANES[shown.pop("lane")], list(shown.pop("pools"))
    return {"plan": shown.pop("name"), "lane": lane, "pools": pools, **shown}


def _tenant_lines(conn: "Connection") -> list[dict[str, Any]]:
    from vidmill.store import accounts

    names = accounts.plan_names(conn)
    return [
        {
            "tenant": tenant.name,
            "plan": names[tenant.plan_id],
            "queued": tenant.queued,
            "running": tenant.running,
            "cap_queued": tenant.cap_queued,
            "cap_running": tenant.cap_running,
        }
        for tenant in accounts.all_tenants(conn)
    ]


def _tenant_id(conn: "Connection", name: str) -> int:
    from vidmill.store import accounts

    known = {tenant.name: tenant.id for tenant in accounts.all_tenants(conn)}
    if name not in known:
        raise CommandError(
            f"there is no tenant {name!r}; make it with `vidmill admin tenant set {name}`",
            Exit.USAGE,
        )
    return known[name]


def _lane_of(text: str | None) -> Any:
    from vidmill.domain.job import Lane

    if text is None:
        return None
    if text not in LANES:
        raise typer.BadParameter(f"{text!r} is no lane; choose vip, standard or batch")
    return Lane(LANES.index(text))


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


def _instant(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
