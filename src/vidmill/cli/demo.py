"""`vidmill demo`, behind `make demo`: the main job on a fresh stack, start to finish."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidmill.cli.options import Json, terminal
from vidmill.cli.output import Exit, Terminal, reported
from vidmill.cli.own_stack import own_stack

if TYPE_CHECKING:
    from vidmill.cli.manifest import Manifest


def demo(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--out", help="Folder for clips, manifest.json and contact.png.")
    ] = Path("out/demo"),
    file: Annotated[Path, typer.Option("--file", help="Campaign to run.")] = Path(
        "examples/campaign.csv"
    ),
    is_json: Json = False,
) -> None:
    """Start a fresh stack, run the sample campaign, show what came out, stop the stack."""
    term = terminal(context, is_json=is_json)
    with reported(term):
        manifest = _run(term, file, output)
        sheet = _draw(manifest)
        from vidmill.cli.batch import report

        report(term, manifest)
        if not is_json:
            term.out.print(f"contact sheet: {sheet}" if sheet else "no clip, no contact sheet")
        if not manifest.is_complete:
            raise typer.Exit(Exit.FAILED)


def register(app: typer.Typer) -> None:
    app.command("demo", hidden=True)(demo)


def _run(term: Terminal, file: Path, output: Path) -> "Manifest":
    from vidmill.cli.batch import read_rows, run_campaign
    from vidmill.client import Vidmill

    output.mkdir(parents=True, exist_ok=True)
    _clear(output)
    # Not below *output*: a Unix socket's path may have 107 bytes at most.
    with (
        tempfile.TemporaryDirectory(prefix="vidmill-demo-") as data,
        own_stack(term, Path(data), log=output / "server.log") as (url, api_key),
        Vidmill(url, api_key) as client,
    ):
        rows = read_rows(file, client)
        return run_campaign(
            term, client, rows, folder=output, campaign=file.name, is_cancelling=True
        )


def _clear(output: Path) -> None:
    """Remove what an earlier demo wrote, and nothing else: its manifest names the files."""
    manifest = output / "manifest.json"
    if not manifest.exists():
        return
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for row in json.loads(manifest.read_text("utf-8"))["rows"]:
            for name in filter(None, (row["file"], row["poster"])):
                (output / Path(name).name).unlink(missing_ok=True)
    manifest.unlink()


def _draw(manifest: "Manifest") -> Path | None:
    from vidmill.cli.contact_sheet import Strip, write_contact_sheet

    strips = [
        Strip(
            path=manifest.folder / str(entry.file),
            caption=f"{number}  {entry.prompt}",
            fallback=f"{number}  {entry.file}",
        )
        for number, entry in enumerate(manifest.entries, 1)
        if entry.is_done
    ]
    if not strips:
        return None
    path = manifest.folder / "contact.png"
    write_contact_sheet(path, strips)
    return path
