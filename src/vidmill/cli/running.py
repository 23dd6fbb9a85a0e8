"""What the commands that run a part of the system share: settings, logging, errors at the start."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vidmill.cli.output import CommandError, Exit

if TYPE_CHECKING:
    from vidmill.settings import Settings


def settings_of(given: dict[str, Any]) -> "Settings":
    """Return the environment's settings, those *given* by options (not None) instead."""
    try:
        from pydantic import ValidationError

        import vidmill.stack  # noqa: F401  # says here which package is missing
        from vidmill.settings import Settings
    except ImportError as error:
        raise CommandError(
            f"running a server needs the package {error.name!r}: pip install '.[worker]'"
        ) from error
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CommandError(f"the settings are wrong: {said}") from error


@contextlib.contextmanager
def starting(settings: "Settings") -> Iterator[None]:
    """Set up logging for the block, and say what hinders its start as a person can mend it."""
    from vidmill.domain.errors import VidmillError
    from vidmill.telemetry import configure_logging
    from vidmill.wiring import CannotStart
    from vidmill.worker.proc import AlreadyRunning

    configure_logging(settings.log_level, settings.log_format)
    try:
        yield
    except OSError as error:
        hint = f"is there room in {settings.data_dir}, and may you write there?"
        raise CommandError(f"cannot start: {error}; {hint}", Exit.FAILED) from error
    except (VidmillError, LookupError, AlreadyRunning, CannotStart) as error:
        said = error.args[0] if isinstance(error, LookupError) and error.args else error
        raise CommandError(str(said), Exit.FAILED) from error
