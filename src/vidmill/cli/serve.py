"""`vidmill serve`, `worker` and `migrate`: the parts of `vidmill up`, each by itself."""

from pathlib import Path
from typing import Annotated

import typer

from vidmill.cli.options import terminal
from vidmill.cli.output import reported
from vidmill.cli.running import settings_of, starting

PANEL = "A cluster"

DataDir = Annotated[
    Path | None, typer.Option(help="Scratch files and sockets. [default: ~/.local/share/vidmill]")
]


def serve(
    context: typer.Context,
    *,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 = any free one.")] = None,
    has_controller: Annotated[
        bool, typer.Option("--controller/--no-controller", help="Whether it may lead the queue.")
    ] = True,
) -> None:
    """Run the API and, in turns with others, the controller. As many as you like."""
    term = terminal(context, is_json=False)
    with reported(term):
        settings = settings_of({"data_dir": data_dir, "host": host, "port": port})
        from vidmill.stack import run_serve

        with starting(settings):
            status = run_serve(
                settings,
                has_controller=has_controller,
                on_listening=lambda url: term.note(f"Vidmill listens on {url}"),
            )
        raise typer.Exit(status)


def worker(
    context: typer.Context,
    *,
    data_dir: DataDir = None,
    pool: Annotated[str | None, typer.Option(help="The pool it serves.")] = None,
    worker_class: Annotated[
        str | None,
        typer.Option("--class", help="Class whose routes it serves instead: `admin route list`."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Model profile; see `vidmill models`.")
    ] = None,
    model_path: Annotated[str | None, typer.Option(help="Folder or hub id of the model.")] = None,
) -> None:
    """Run one worker: one per GPU. SIGTERM finishes the running clip, a second one hands it back.

    Exit status 70: the engine failed again and again, and the worker took itself out.
    """
    term = terminal(context, is_json=False)
    given = {
        "data_dir": data_dir,
        "pool": pool,
        "worker_class": worker_class,
        "profile": profile,
        "model_path": model_path,
    }
    with reported(term):
        settings = settings_of(given)
        from vidmill.worker.__main__ import serve as serve_pools

        with starting(settings):
            status = serve_pools(settings)
        raise typer.Exit(status)


def migrate(context: typer.Context, *, data_dir: DataDir = None) -> None:
    """Bring the database to this release's schema. Safe to run twice, and from two places."""
    term = terminal(context, is_json=False)
    with reported(term):
        settings = settings_of({"data_dir": data_dir})
        from vidmill.store import migrate as schema

        with starting(settings):
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            url = settings.effective_database_url
            before = schema.current(url) if _is_there(url) else None
            schema.upgrade(url)
        after = schema.head()
        is_new = before != after
        term.out.print(
            f"schema {before or 'none'} → {after}" if is_new else f"schema {after}: nothing to do"
        )


def register(app: typer.Typer) -> None:
    for name, command in (("serve", serve), ("worker", worker), ("migrate", migrate)):
        app.command(name, rich_help_panel=PANEL)(command)


def _is_there(url: str) -> bool:
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).exists()
