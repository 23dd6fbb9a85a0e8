"""`python -m vidmill.worker`: one supervisor, alone or as a child of `vidmill up`."""

import argparse
import secrets
import signal
import sys

from vidmill import wiring
from vidmill.settings import Settings
from vidmill.telemetry import configure_logging
from vidmill.worker.loop import EventLoop
from vidmill.worker.proc import die_with, end_leftovers
from vidmill.worker.supervisor import Assignment, Supervisor


def new_worker_id() -> str:
    """Return a name no worker ever had."""
    return f"w_{secrets.token_hex(8)}"


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vidmill.worker", description=__doc__)
    parser.add_argument("--worker", default=new_worker_id(), help="a name never used before")
    parser.add_argument("--parent", type=int, help="die when this process does")
    parser.add_argument("--engine", default="", help="module:Class, instead of the profile's")
    parser.add_argument(
        "--settings-stdin", action="store_true", help="read the settings as JSON from stdin"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    given = _arguments(arguments)
    if given.parent:
        die_with(given.parent)
    settings = (
        Settings.model_validate_json(sys.stdin.read()) if given.settings_stdin else Settings()
    )
    configure_logging(settings.log_level, settings.log_format)
    settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    end_leftovers(settings.run_dir, are_owners_spared=True)
    app = wiring.build(settings)
    assignment = Assignment(
        worker=given.worker, pool=settings.pool, engine=given.engine or wiring.engine_path()
    )
    loop = EventLoop()
    supervisor = Supervisor(app, assignment, loop=loop)
    loop.on_signals((signal.SIGTERM, signal.SIGINT), supervisor.drain)
    try:
        supervisor.run()
    finally:
        app.close()


if __name__ == "__main__":
    main(sys.argv[1:])
