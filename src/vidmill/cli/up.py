"""`vidmill up`: API, controller and one worker on this machine, until Ctrl-C."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidmill.cli.options import terminal
from vidmill.cli.output import Terminal, reported
from vidmill.cli.running import settings_of, starting

if TYPE_CHECKING:
    from vidmill.settings import Settings
    from vidmill.stack import Connection


_DRAINING = (
    "stopping: a clip that is being made is finished first, for at most {:g} s.\n"
    "Ctrl-C again stops at once; the clip goes back to the queue and is made at the next start."
)
_STOPPING = "stopping at once; what was being made goes back to the queue"

EXAMPLE = '"a red ball moves right on a blue background" --duration 3'


def up(
    context: typer.Context,
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Database, files and keys. [default: ~/.local/share/vidmill]"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 = any free one.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="Model profile; see `vidmill models`.")
    ] = None,
    model_path: Annotated[str | None, typer.Option(help="Folder or hub id of the model.")] = None,
) -> None:
    """Run the whole of Vidmill on this machine. Ctrl-C finishes the running clip, then stops."""
    term = terminal(context, is_json=False)
    given = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "profile": profile,
        "model_path": model_path,
    }
    with reported(term):
        settings = settings_of(given)
        raise typer.Exit(_run(term, settings))


def register(app: typer.Typer) -> None:
    app.command("up", rich_help_panel="This machine")(up)


def _how_to_find(data_dir: Path) -> str:
    """Say how SDK and CLI of another terminal find this server."""
    from vidmill.settings import default_data_dir

    folder = data_dir.absolute()
    if folder == default_data_dir().absolute():
        return "SDK and CLI of this user find it by themselves"
    return f"In another terminal, first:  export VIDMILL_DATA_DIR={shlex.quote(str(folder))}"


def _run(term: Terminal, settings: "Settings") -> int:
    from vidmill.stack import Callbacks, run_up

    def on_listening(connection: "Connection") -> None:
        term.note(f"Vidmill listens on {connection.url}; loading model {settings.profile} …")

    def on_ready() -> None:
        how = _how_to_find(settings.data_dir)
        term.note(f"ready. {how}\ntry:  vidmill generate {EXAMPLE}")

    def on_stopping(is_draining: bool) -> None:
        term.note(_DRAINING.format(settings.drain_s) if is_draining else _STOPPING)

    callbacks = Callbacks(on_listening=on_listening, on_ready=on_ready, on_stopping=on_stopping)
    with starting(settings):
        return run_up(settings, callbacks)
