"""`vidmill models`: which model profiles there are, and whether their folders are whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidmill.cli.models_plan import plan
from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, Exit, Terminal, reported

if TYPE_CHECKING:
    from vidmill.engines.folder import ModelStatus


models = typer.Typer(help="Model profiles.", invoke_without_command=True)


@models.callback()
def list_models(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Option("--path", help="Check this folder instead, as --profile.", show_default=False),
    ] = None,
    profile: Annotated[str, typer.Option(help="Profile that --path is checked as.")] = "tiny",
    is_json: Json = False,
) -> None:
    """List model profiles and check their folders, without loading anything."""
    if context.invoked_subcommand is not None:
        return
    term = terminal(context, is_json=is_json)
    with reported(term):
        found = _describe(profile, path)
        if is_json:
            term.document([_document(status) for status in found])
        else:
            _print(term, found)
        if any(problem.severity == "error" for status in found for problem in status.findings):
            raise typer.Exit(Exit.FAILED)


def register(app: typer.Typer) -> None:
    models.command("plan")(plan)
    app.add_typer(models, name="models", rich_help_panel="This machine")


def _describe(profile: str, path: Path | None) -> "list[ModelStatus]":
    try:
        from vidmill.engines.folder import describe_model, describe_models
        from vidmill.profiles import load_profile
    except ImportError as error:
        raise CommandError(
            f"checking models needs the package {error.name!r}: "
            "pip install '.[worker]' in Vidmill's folder, where they are"
        ) from error
    if path is None:
        return describe_models()
    try:
        return [describe_model(load_profile(profile), str(path.absolute()))]
    except LookupError as error:
        raise CommandError(str(error)) from error


def _document(status: "ModelStatus") -> dict[str, Any]:
    return {
        "name": status.profile.name,
        "title": status.profile.title,
        "licence": status.profile.licence,
        "is_toy": status.profile.is_toy,
        "source": status.source,
        "engine": status.profile.engine,
        "is_remote": status.profile.remote is not None,
        "path": str(status.path) if status.path else None,
        "is_installed": status.is_installed,
        "size_bytes": status.size_bytes,
        "sizes": {name: str(size) for name, size in status.profile.sizes.items()},
        "findings": [vars(finding) for finding in status.findings],
    }


def _print(term: Terminal, found: "list[ModelStatus]") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("profile", "model", "installed", "size", box=None, pad_edge=False)
    table.add_column("where", overflow="fold")
    for status in found:
        size = f"{status.size_bytes / 1e6:,.0f} MB" if status.path else ""
        state = "[green]yes[/green]" if status.is_installed else "no"
        state = "remote" if status.profile.remote else state
        where = escape(str(status.path or status.source))
        table.add_row(status.profile.name, escape(status.profile.title), state, size, where)
    term.out.print(table)
    for status in found:
        for finding in status.findings:
            term.out.print(f"{status.profile.name}: {finding.severity}: {finding}", markup=False)
