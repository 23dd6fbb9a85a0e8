"""`vidmill config show`: what is set, and where each value came from."""

import os
from typing import Any

import typer

from vidmill.cli.options import Json, terminal
from vidmill.cli.output import Terminal, reported

config = typer.Typer(help="Settings.", no_args_is_help=True)

HIDDEN = "********"


@config.command("show")
def show(context: typer.Context, is_json: Json = False) -> None:
    """Show every setting of client and server, secrets hidden, and where it came from."""
    term = terminal(context, is_json=is_json)
    with reported(term):
        values = {"client": _client(term), "server": _server()}
        if is_json:
            term.document(values)
        else:
            _print(term, values)


def register(app: typer.Typer) -> None:
    app.add_typer(config, name="config", rich_help_panel="This machine")


def _client(term: Terminal) -> list[dict[str, Any]]:
    from vidmill.client import ConnectionNotFound, connection_files, find_connection

    places = _row("connection_files", list(map(str, connection_files(os.environ))), "searched")
    try:
        found = find_connection(term.url, term.api_key)
    except ConnectionNotFound:
        return [_row("url", None, "not found"), _row("api_key", None, "not found"), places]
    key = HIDDEN if found.api_key else None
    return [
        _row("url", _without_password(found.url), found.url_source),
        _row("api_key", key, found.api_key_source),
        places,
    ]


def _row(name: str, value: Any, source: str) -> dict[str, Any]:
    return {"name": name, "value": value, "source": source}


def _server() -> list[dict[str, Any]] | str:
    """Return the server's settings here, or why there are none to show."""
    try:
        from pydantic import ValidationError

        from vidmill.settings import Settings
    except ImportError:
        return "not installed: pip install '.[server]' in Vidmill's folder"
    try:
        settings = Settings()
    except ValidationError as error:
        return f"invalid: {error}"
    return [
        _row(name, _shown(name, value), _source(name, is_set=name in settings.model_fields_set))
        for name, value in settings
    ]


def _source(name: str, *, is_set: bool) -> str:
    return f"VIDMILL_{name.upper()}" if is_set else "default"


def _shown(name: str, value: Any) -> Any:
    """Return *value* fit to be seen: no secrets, no passwords inside URLs."""
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if name.endswith("_url") and isinstance(value, str):
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}{separator}{user}:{HIDDEN}@{host}"


def _print(term: Terminal, values: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    for title, rows in values.items():
        term.out.print(f"[bold]{title}[/bold]")
        if isinstance(rows, str):
            term.out.print(f"  {rows}", markup=False)
            continue
        table = Table("name", "value", "from", box=None, show_header=False, padding=(0, 2))
        for row in rows:
            table.add_row(row["name"], escape(_text(row["value"])), escape(row["source"]))
        term.out.print(table)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
