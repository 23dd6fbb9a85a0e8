"""`python -m vidmill.worker`: one supervisor, alone or as a child of `vidmill up`."""

import argparse
import secrets
import signal
import sys

from vidmill import wiring
from vidmill.settings import Settings
from vidmill.store import routes
from vidmill.store.routes import Route
from vidmill.telemetry import configure_logging
from vidmill.worker.loop import EventLoop
from vidmill.worker.proc import die_with, end_leftovers, living, tidy_scratch
from vidmill.worker.production import Production
from vidmill.worker.records import Assignment
from vidmill.worker.supervisor import MakeProduction, Supervisor


def new_worker_id() -> str:
    """Return a name no worker ever had."""
    return f"w_{secrets.token_hex(8)}"


def serve(
    settings: Settings,
    *,
    worker: str | None = None,
    engine: str = "",
    make_production: MakeProduction = Production,
) -> int:
    """Run a supervisor until it is told to stop; return the exit status. Main thread only.

    The first SIGTERM or SIGINT drains, the second hands the runs back at once.

    Raises:
        CannotStart: The database is at another schema, or the worker class has no routes.
        ServiceUnavailable: The database cannot be asked now.
    """
    wiring.check_schema(settings)
    app = wiring.build(settings)
    try:
        end_leftovers(settings.run_dir, are_owners_spared=True)
        tidy_scratch(settings.scratch_dir, live=living(settings.run_dir))
        assignment = Assignment(
            worker=worker or new_worker_id(),
            engine=engine or wiring.engine_path(settings, app.profile),
            routes=_routes(app),
            worker_class=settings.worker_class,
        )
        loop = EventLoop()
        supervisor = Supervisor(app, assignment, loop=loop, make_production=make_production)
        loop.on_signals((signal.SIGTERM, signal.SIGINT), supervisor.drain)
        return supervisor.run()
    finally:
        app.close()


def _routes(app: wiring.App) -> tuple[Route, ...]:
    name = app.settings.worker_class
    if not name:
        return (Route(pool=app.settings.pool),)
    found = app.db.read(lambda conn: routes.of_class(conn, name))
    if not any(route.min_wait_s == 0 for route in found):
        raise wiring.CannotStart(
            f"the worker class {name!r} serves no pool at once; say which with"
            f" `vidmill admin route set {name} POOL [POOL:WAIT_S …]`"
        )
    return found


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vidmill.worker", description=__doc__)
    parser.add_argument("--worker", default=new_worker_id(), help="a name never used before")
    parser.add_argument("--parent", type=int, help="die when this process does")
    parser.add_argument("--engine", default="", help="module:Class, instead of the profile's")
    parser.add_argument(
        "--settings-stdin", action="store_true", help="read the settings as JSON from stdin"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    given = _arguments(arguments)
    if given.parent:
        die_with(given.parent)
    settings = (
        Settings.model_validate_json(sys.stdin.read()) if given.settings_stdin else Settings()
    )
    configure_logging(settings.log_level, settings.log_format)
    return serve(settings, worker=given.worker, engine=given.engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
