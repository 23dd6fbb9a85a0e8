"""Options that several commands share, and how a command learns the global ones."""

from pathlib import Path
from typing import Annotated

import typer

from vidmill.cli.output import Terminal

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
TaskId = Annotated[str, typer.Argument(help="Task id, t2v_…", show_default=False)]
OutFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; default: TASK_ID.mp4.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


def terminal(context: typer.Context, *, is_json: bool) -> Terminal:
    """Return how the command of *context* talks; `--url` and `--api-key` come before its name."""
    return Terminal(is_json=is_json, **(context.find_root().obj or {}))
