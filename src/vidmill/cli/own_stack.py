"""A whole stack of one's own for one command, gone when the command ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vidmill.cli.output import CommandError, Exit, Terminal

READY_S = 180.0
"""Longest wait for the model; two cores of a laptop need about 15 s."""
STOP_STEPS = ((signal.SIGINT, 5.0), (signal.SIGINT, 30.0), (signal.SIGKILL, 5.0))
"""What the stack is sent, and how long it may take to end."""
LOG_TAIL_LINES = 15
ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""What ends the command as Ctrl-C does, unless it was started deaf to it (`nohup`)."""


@contextlib.contextmanager
def own_stack(term: Terminal, data: Path, *options: str, log: Path) -> Iterator[tuple[str, str]]:
    """Run `vidmill up` *options* on a free port with the fresh folder *data*; give URL and key."""
    command = [sys.executable, "-m", "vidmill", "up", "--data-dir", str(data), "--port", "0"]
    command += options
    with log.open("wb") as output, _ended_as_by_ctrl_c():
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


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let whoever ends this program by a signal end what it started, too."""
    heard = [number for number in ENDINGS if signal.getsignal(number) == signal.SIG_DFL]
    for number in heard:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def _plain_environment() -> dict[str, str]:
    """Return the environment without our settings: it must never touch a real database."""
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
