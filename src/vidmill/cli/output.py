"""What a command says, where, and its exit code.

Results go to stdout, everything else (progress, notes, errors) to stderr. With `--json` stdout
holds one JSON document and nothing else, errors included.
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from vidmill.client import Vidmill


class Exit(IntEnum):
    """Exit codes; documented in docs/cli.md and never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    CANCELLED = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


EXITS: Mapping[str, Exit] = {
    "InvalidRequest": Exit.USAGE,
    "Unauthorized": Exit.NO_SERVER,
    "ConnectionNotFound": Exit.NO_SERVER,
    "TransportError": Exit.NO_SERVER,
    "TaskCancelled": Exit.CANCELLED,
    "StoryboardCancelled": Exit.CANCELLED,
    "Timeout": Exit.TIMED_OUT,
    "StoryboardUnfinished": Exit.TIMED_OUT,
    "VidmillError": Exit.FAILED,
}
"""Exit code by the nearest class of the SDK's error tree; by name, so that nothing is imported."""


PIPED_COLUMNS = 10_000
"""Of a table that goes to a file or a program: nothing in it is cut or folded."""


class CommandError(Exception):
    """A command cannot go on; *message* says why and what to do."""

    def __init__(self, message: str, exit_code: Exit = Exit.USAGE, **details: Any) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = details


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """How this command talks, and which server it was told to use."""

    is_json: bool = False
    url: str | None = None
    api_key: str | None = None

    @cached_property
    def out(self) -> "Console":
        from rich.console import Console

        if sys.stdout.isatty():
            return Console(highlight=False)
        return Console(highlight=False, soft_wrap=True, width=PIPED_COLUMNS)

    @cached_property
    def err(self) -> "Console":
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def open_client(self) -> "Vidmill":
        from vidmill.client import Vidmill

        return Vidmill(self.url, self.api_key)

    def document(self, value: Any) -> None:
        """Print *value* as the one JSON document of this command."""
        print(json.dumps(value, ensure_ascii=False, indent=2, default=str))  # noqa: T201

    def note(self, text: str) -> None:
        """Say something that is not the result."""
        self.err.print(text, markup=False, soft_wrap=True)

    def fail(self, error: Exception, code: str, **details: Any) -> None:
        if self.is_json:
            self.document({"error": {"code": code, "message": str(error), **details}})
        else:
            self.err.print("[bold red]error:[/bold red] ", end="")
            fields = getattr(error, "errors", ())
            wrong = "".join(f"\n  {field.field}: {field.message}" for field in fields)
            self.note(f"the request was refused:{wrong}" if wrong else str(error))


@contextlib.contextmanager
def reported(terminal: Terminal) -> Iterator[None]:
    """Turn errors into a message and an exit code; a traceback is a defect of ours."""
    try:
        yield
    except CommandError as error:
        terminal.fail(error, "usage", **error.details)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(Exit.INTERRUPTED) from interrupt
    except Exception as error:
        if not _is_ours(error):
            raise
        terminal.fail(error, code_of(error), **_details(error))
        raise typer.Exit(exit_code_of(error)) from error


def refuse_overwrite(path: Path | None, *, force: bool) -> None:
    """Go on unless a command would replace a file that nobody told it to.

    Raises:
        CommandError: It would.
    """
    if path and path.exists() and not force:
        raise CommandError(f"{path} exists; choose another name or add --force", Exit.USAGE)


def exit_code_of(error: BaseException) -> Exit:
    """Return the exit code that an error of the SDK means."""
    return next(EXITS[c.__name__] for c in type(error).__mro__ if c.__name__ in EXITS)


def code_of(error: Exception) -> str:
    """Return the server's code, or the class in the same style: `connection_not_found`."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return str(getattr(error, "code", snake))


def _is_ours(error: Exception) -> bool:
    return type(error).__module__.startswith("vidmill.client")


def _details(error: Exception) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if fields := getattr(error, "errors", ()):
        details["errors"] = [vars(field) for field in fields]
    for name in ("task", "storyboard"):
        if known := getattr(error, name, None):
            details[name] = known.model_dump(mode="json")
    return details
