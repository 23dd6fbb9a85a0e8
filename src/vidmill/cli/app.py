"""The tree of commands. Each module brings its own; none imports SDK or server until it runs."""

from typing import Annotated

import typer

from vidmill import __version__
from vidmill.cli import (
    admin,
    batch,
    clips,
    config,
    demo,
    doctor,
    models,
    serve,
    storyboard,
    up,
)
from vidmill.cli.output import Exit

app = typer.Typer(
    name="vidmill",
    help="Text to video, from a prompt to a finished MP4.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 task failed, 2 wrong usage or request, 3 no server or key, "
    "4 cancelled, 5 timed out, 130 interrupted.",
)


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="Server to use.", show_default=False)] = None,
    api_key: Annotated[str | None, typer.Option(help="Its API key.", show_default=False)] = None,
) -> None:
    """Text to video, from a prompt to a finished MP4."""
    context.obj = {"url": url, "api_key": api_key}


for module in (clips, batch, storyboard, models, doctor, config, up, demo, serve, admin):
    module.register(app)


@app.command(rich_help_panel="This machine")
def version() -> None:
    """Print the version."""
    typer.echo(f"vidmill {__version__}")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        app(arguments, prog_name="vidmill")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.FAILED
    return Exit.OK
