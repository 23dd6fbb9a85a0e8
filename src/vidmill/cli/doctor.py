"""`vidmill doctor`: what is in order here, what is not, and what to do about it."""

import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vidmill.cli.doctor_model import model_findings
from vidmill.cli.finding import Finding, State
from vidmill.cli.options import Json, terminal
from vidmill.cli.output import Exit, Terminal, reported

if TYPE_CHECKING:
    from vidmill.client import Readiness

PYTHON_MIN = (3, 11)
DISK_FAIL_BYTES = 1 << 30
DISK_WARN_BYTES = 10 << 30
SHM_WARN_BYTES = 1 << 30
"""One 10 s 720p clip in shared memory is 0.45 GB; containers often have 64 MB."""
CLOCK_WARN_S = 5.0

EXTRAS = {
    "server": ("fastapi", "uvicorn", "sqlalchemy", "alembic", "obstore", "structlog"),
    "worker": ("torch", "diffusers", "transformers", "av", "cv2", "PIL", "numpy"),
}

STYLES: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(context: typer.Context, is_json: Json = False) -> None:
    """Check this machine and its connection to a server; exit 1 if something must be mended."""
    term = terminal(context, is_json=is_json)
    with reported(term):
        findings = [finding for check in CHECKS for finding in check(term)]
        if is_json:
            term.document([asdict(finding) for finding in findings])
        else:
            _print(term, findings)
        if any(finding.state == "fail" for finding in findings):
            raise typer.Exit(Exit.FAILED)


def register(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="This machine")(doctor)


def _python(_term: Terminal) -> Iterable[Finding]:
    detail = f"{sys.version.split()[0]} at {sys.executable}"
    is_new = sys.version_info >= PYTHON_MIN
    yield Finding(
        name="python",
        state="ok" if is_new else "fail",
        detail=detail,
        remedy="" if is_new else "install Python 3.11 or newer",
    )


def _extras(_term: Terminal) -> Iterable[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            yield Finding(name=f"extra {extra}", state="ok", detail="installed")
        else:
            yield Finding(
                name=f"extra {extra}",
                state="warn",
                detail=f"missing: {', '.join(missing)}",
                remedy=f"only if clips are to be made here: pip install '.[{extra}]'",
            )


def _server(term: Terminal) -> Iterable[Finding]:
    from vidmill.client import ConnectionNotFound, VidmillError

    try:
        client = term.open_client()
    except ConnectionNotFound as error:
        yield Finding(
            name="connection",
            state="warn",
            detail=str(error).partition(". ")[0],
            remedy="vidmill up, or set VIDMILL_URL and VIDMILL_API_KEY",
        )
        return
    with client:
        found = client.connection
        yield Finding(
            name="connection", state="ok", detail=f"{found.url} (from {found.url_source})"
        )
        try:
            yield _ready(client.readiness())
            client.capabilities()
            yield Finding(name="api key", state="ok", detail=f"from {found.api_key_source}")
        except VidmillError as error:
            yield Finding(
                name="server",
                state="fail",
                detail=str(error),
                remedy="start it with `vidmill up`, or check VIDMILL_URL and VIDMILL_API_KEY",
            )


def _ready(state: "Readiness") -> Finding:
    if state.is_ready:
        return Finding(name="server", state="ok", detail="ready")
    return Finding(
        name="server",
        state="warn",
        detail=f"not ready: {state.missing}",
        remedy="wait for the model to load; the server's own output says more",
    )


def _permissions(_term: Terminal) -> Iterable[Finding]:
    import os

    from vidmill.client import connection_files

    for path in connection_files(os.environ):
        if path.exists() and path.stat().st_mode & 0o077:
            yield Finding(
                name="key file",
                state="warn",
                detail=f"{path} can be read by others",
                remedy=f"chmod 600 {path}",
            )


def _clock(term: Terminal) -> Iterable[Finding]:
    """Signed links and leases suffer when clocks differ; the server's is in its `Date` header."""
    import httpx2

    from vidmill.client import ConnectionNotFound, find_connection

    try:
        url = find_connection(term.url, term.api_key).url
        answer = httpx2.get(f"{url}/livez", timeout=5.0, trust_env=False)
        drift_s = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    except (ConnectionNotFound, httpx2.HTTPError, KeyError, ValueError):
        return
    is_off = abs(drift_s) > CLOCK_WARN_S
    yield Finding(
        name="clock",
        state="warn" if is_off else "ok",
        detail=f"{abs(drift_s):.0f} s from the server's",
        remedy="synchronise both clocks (NTP)" if is_off else "",
    )


def _disk(_term: Terminal) -> Iterable[Finding]:
    folder = _data_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    state: State = "ok"
    if free < DISK_WARN_BYTES:
        state = "fail" if free < DISK_FAIL_BYTES else "warn"
    yield Finding(
        name="disk",
        state=state,
        detail=f"{free / 1e9:.1f} GB free for {folder}",
        remedy="" if state == "ok" else "free some, or set VIDMILL_DATA_DIR to a larger disk",
    )


def _data_dir() -> Path:
    import os

    from vidmill.client import connection_files

    return connection_files(os.environ)[0].parent


def _shared_memory(_term: Terminal) -> Iterable[Finding]:
    shm = Path("/dev/shm")  # noqa: S108  # it is measured, nothing is written there
    if not shm.is_dir():
        return
    total = shutil.disk_usage(shm).total
    is_small = total < SHM_WARN_BYTES
    yield Finding(
        name="shared memory",
        state="warn" if is_small else "ok",
        detail=f"{total / 1e9:.1f} GB in {shm}",
        remedy="frames pass through it: start the container with --shm-size=2g" if is_small else "",
    )


def _codec(_term: Terminal) -> Iterable[Finding]:
    try:
        import av
    except ImportError:
        return  # the worker extra says so already
    try:
        av.Codec("libx264", "w")
    except (ValueError, av.FFmpegError):
        yield Finding(
            name="codec",
            state="fail",
            detail="PyAV has no libx264 encoder",
            remedy="install PyAV's own wheels: pip install --force-reinstall --only-binary av av",
        )
    else:
        yield Finding(name="codec", state="ok", detail=f"libx264 (PyAV {av.__version__})")


CHECKS: tuple[Callable[[Terminal], Iterable[Finding]], ...] = (
    _python,
    _extras,
    _server,
    _permissions,
    _clock,
    _disk,
    _shared_memory,
    _codec,
    model_findings,
)


def _print(term: Terminal, findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "", "", box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = f"[{STYLES[finding.state]}]{finding.state}[/]"
        remedy = f"\n[dim]-> {escape(finding.remedy)}[/dim]" if finding.remedy else ""
        table.add_row(mark, finding.name, escape(finding.detail) + remedy)
    term.out.print(table)
