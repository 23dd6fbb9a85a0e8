"""`vidmill demo`, behind `make demo`: the main job on a fresh stack, start to finish."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidmill.cli.options import Json, terminal
from vidmill.cli.output import CommandError, Exit, Terminal, reported

if TYPE_CHECKING:
    from vidmill.cli.manifest import Manifest

READY_S = 180.0
"""Longest wait for the model; two cores of a laptop need about 15 s."""
STOP_STEPS = ((signal.SIGINT, 5.0), (signal.SIGINT, 30.0), (signal.SIGKILL, 5.0))
"""What the stack is sent, and how long it may take to end."""
LOG_TAIL_LINES = 15


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
        _stack(term, Path(data), log=output / "server.log") as (url, api_key),
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


@contextlib.contextmanager
def _stack(term: Terminal, data: Path, *, log: Path) -> Iterator[tuple[str, str]]:
    """Run `vidmill up` on a free port with the fresh folder *data*; give its URL and key."""
    command = [sys.executable, "-m", "vidmill", "up", "--data-dir", str(data), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # this very program
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C here must reach it once, from `_stop`
            env=_plain_environment(),
        )
        try:
            connection = _await_ready(term, process, data, log)
            yield connection
        finally:
            _stop(term, process)


def _plain_environment() -> dict[str, str]:
    """Return the environment without our settings: the demo must never touch a real database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIDMILL_")}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _await_ready(
    term: Terminal, process: "subprocess.Popen[bytes]", data: Path, log: Path
) -> tuple[str, str]:
    started = time.monotonic()
    with term.err.status("starting …") as status:
        while time.monotonic() - started < READY_S:
            if process.poll() is not None:
                tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:])
                message = f"the stack ended with status {process.returncode}; {log} ends:\n{tail}"
                raise CommandError(message, Exit.FAILED)
            state, connection = _look(data)
            if connection:
                term.note(f"stack ready after {time.monotonic() - started:.1f} s: {connection[0]}")
                return connection
            status.update(f"starting: {state}")
            time.sleep(0.2)
    raise CommandError(f"the stack was not ready within {READY_S:.0f} s; see {log}", Exit.TIMED_OUT)


def _look(data: Path) -> tuple[str, tuple[str, str] | None]:
    """Return what the stack is waiting for; once there is nothing, its URL and key."""
    from vidmill.client import TransportError, Vidmill, find_connection

    path = data / "connection.json"
    if not path.exists():
        return "database", None
    found = find_connection(environ={"VIDMILL_DATA_DIR": str(data)})
    try:
        with Vidmill(found.url, found.api_key) as client:
            state = client.readiness()
    except TransportError:
        return "API", None
    ready = (found.url, found.api_key) if state.is_ready else None
    return state.missing, ready


def _stop(term: Terminal, process: "subprocess.Popen[bytes]") -> None:
    """End the stack: ask, ask again (which ends the drain), and in the end kill it."""
    with term.err.status("stopping …"):
        for signal_number, wait_s in STOP_STEPS:
            if process.poll() is not None:
                return
            process.send_signal(signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)


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
