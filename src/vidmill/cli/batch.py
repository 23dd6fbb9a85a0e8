"""`vidmill batch run`: a campaign file in, clips, posters and a manifest out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, Exit, Terminal, reported

if TYPE_CHECKING:
    from vidmill.cli.campaign import Row
    from vidmill.cli.manifest import Manifest
    from vidmill.client import Vidmill

batch = typer.Typer(help="Many clips from one file.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="CSV with a column 'prompt'.", show_default=False)]


@batch.command("run")
def run(
    context: typer.Context,
    file: File,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for clips, posters and manifest.json.")
    ] = Path("out"),
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Tasks watched at once.")] = 8,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels what is not finished.")
    ] = False,
    no_poster: Annotated[bool, typer.Option("--no-poster", help="Clips only.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="New clips, even where identical ones are there.")
    ] = False,
    is_json: Json = False,
) -> None:
    """Make every clip of a campaign; run it again to go on where it stopped."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        rows = read_rows(file, client)
        manifest = run_campaign(
            term,
            client,
            [_anew(row) for row in rows] if no_cache else rows,
            folder=output,
            campaign=file.name,
            concurrency=concurrency,
            has_posters=not no_poster,
            is_cancelling=cancel_on_interrupt,
        )
        report(term, manifest)
        if not manifest.is_complete:
            raise typer.Exit(Exit.FAILED)


@batch.command("check")
def check(context: typer.Context, file: File, is_json: Json = False) -> None:
    """Look for mistakes in a campaign file, against the server's limits; send nothing."""
    term = terminal(context, is_json=is_json)
    with reported(term), term.open_client() as client:
        rows = read_rows(file, client)
        if is_json:
            term.document({"rows": len(rows), "problems": []})
        else:
            term.out.print(f"{file}: {len(rows)} rows, no mistakes", markup=False)


def register(app: typer.Typer) -> None:
    app.add_typer(batch, name="batch", rich_help_panel="Clips")


def _anew(row: "Row") -> "Row":
    return replace(row, clip=row.clip.model_copy(update={"cache": False}))


def run_campaign(
    term: Terminal,
    client: "Vidmill",
    rows: "list[Row]",
    *,
    folder: Path,
    campaign: str,
    concurrency: int = 8,
    has_posters: bool = True,
    is_cancelling: bool = False,
) -> "Manifest":
    """Make what is not there yet, with live bars; return the manifest, which is also written."""
    from vidmill.cli.campaign_run import CampaignRun
    from vidmill.cli.manifest import open_manifest

    try:
        manifest = open_manifest(folder, rows, campaign=campaign, server=client.connection.url)
    except ValueError as error:
        raise CommandError(str(error)) from error
    campaign_run = CampaignRun(client, rows, manifest, has_posters=has_posters)
    try:
        campaign_run.run(term.err, concurrency=concurrency)
    except KeyboardInterrupt:
        term.note(_farewell(campaign_run.leave(is_cancelling=is_cancelling), folder))
        raise
    return manifest


def report(term: Terminal, manifest: "Manifest") -> None:
    """Print the manifest as a table, or as JSON."""
    from rich.markup import escape
    from rich.table import Table

    if term.is_json:
        term.document(manifest.to_json())
        return
    table = Table("prompt", "size", "clip", "made in", "file", box=None, pad_edge=False)
    for entry in manifest.entries:
        end = escape(entry.error or entry.status) if not entry.is_done else entry.file
        clip = "" if entry.duration is None else f"{entry.duration:g} s"
        seconds = "" if entry.seconds is None else f"{entry.seconds:.1f} s"
        table.add_row(escape(entry.prompt), entry.size or "", clip, seconds, end)
    term.out.print(table)
    done = sum(entry.is_done for entry in manifest.entries)
    where = manifest.folder / "manifest.json"
    term.out.print(f"{done} of {len(manifest.entries)} clips, {where}", markup=False)


def read_rows(file: Path, client: "Vidmill") -> "list[Row]":
    """Return the rows of a campaign file without a mistake, by the file's rules and the server's.

    Raises:
        CommandError: There are mistakes; it names all of them.
    """
    from vidmill.cli.campaign import read_campaign
    from vidmill.cli.limits import check_limits

    try:
        campaign = read_campaign(file)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
    problems = [*campaign.problems, *check_limits(campaign.rows, client.capabilities())]
    if problems:
        problems.sort(key=lambda problem: problem.line)
        listed = "\n".join(f"  {problem}" for problem in problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise CommandError(
            f"nothing was sent, {file} has {count}:\n{listed}",
            problems=[vars(problem) for problem in problems],
        )
    return campaign.rows


def _farewell(unfinished: int, folder: Path) -> str:
    if unfinished < 0:
        return f"interrupted; {-unfinished} tasks were cancelled"
    return (
        f"interrupted; {unfinished} tasks go on at the server. Run the same command again to go on "
        f"(it reads {folder / 'manifest.json'}), or add --cancel-on-interrupt next time"
    )
