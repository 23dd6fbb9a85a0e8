"""What all commands of `vidmill admin` share: the database, and lines shown as a table or JSON."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.options import terminal
from vidmill.cli.output import PIPED_COLUMNS, CommandError, Exit, Terminal, reported
from vidmill.cli.running import settings_of, starting

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

    from vidmill.store.session import Connection, Database, UnitOfWork

Name = Annotated[str, typer.Argument(show_default=False)]


@contextlib.contextmanager
def database() -> "Iterator[Database]":
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


def show_read(
    context: typer.Context,
    read: "Callable[[Connection], list[dict[str, Any]]]",
    *,
    is_json: bool,
) -> None:
    term = terminal(context, is_json=is_json)
    with reported(term), database() as db:
        show(term, db.read(read))


def show_written(
    context: typer.Context, save: "Callable[[UnitOfWork], dict[str, Any]]", *, is_json: bool
) -> None:
    term = terminal(context, is_json=is_json)
    with reported(term), database() as db:
        show(term, [db.write(save)])


def show(term: Terminal, lines: Sequence[dict[str, Any]]) -> None:
    """Print *lines* as a table, one below the other where that is too wide, or as JSON.

    In JSON values keep their types.
    """
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
        side: JustifyMethod = "right" if isinstance(value, int | float) else "left"
        table.add_column(name.replace("_", " "), justify=side)
    for line in lines:
        table.add_row(*(escape(_cell(value)) for value in line.values()))
    wide = term.out.options.update_width(PIPED_COLUMNS)  # else what is measured is cut already
    if term.out.measure(table, options=wide).maximum <= term.out.width:
        term.out.print(table)
        return
    for line in lines:
        term.out.print(_record(line))


def _record(line: dict[str, Any]) -> "Table":
    """Return *line* as a list of names and values, for where it is too wide to be a row."""
    from rich.markup import escape
    from rich.table import Table

    record = Table("", "", box=None, show_header=False, pad_edge=False)
    for name, value in line.items():
        record.add_row(f"[dim]{name.replace('_', ' ')}[/dim]", escape(_cell(value)))
    record.add_row()
    return record


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "(none)"
    if isinstance(value, dict) and "pool" in value:  # a route
        wait_s = value["min_wait_s"]
        return f"{value['pool']} after {wait_s:g} s" if wait_s else str(value["pool"])
    if isinstance(value, dict):
        parts = (f"{name.replace('_', ' ')}: {_cell(part)}" for name, part in value.items())
        return "\n".join(parts) or "-"
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else _INSTANT.sub(r"\1 \2", str(value))


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00")
"""A table has no room for seconds; all instants are UTC."""


def tenant_named(conn: "Connection", name: str) -> int:
    from vidmill.store import accounts

    known = {tenant.name: tenant.id for tenant in accounts.all_tenants(conn)}
    if name not in known:
        raise CommandError(
            f"there is no tenant {name!r}; make it with `vidmill admin tenant set {name}`",
            Exit.USAGE,
        )
    return known[name]


def instant(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
