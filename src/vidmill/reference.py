"""Writes the generated reference pages: `python -m vidmill.reference [--check]`.

A test runs `--check`, so a setting, an error code or a route cannot change without its page.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from vidmill.api.metrics import CATALOGUE
from vidmill.api.reference import api_page, errors_page, openapi_document
from vidmill.settings import Settings, default_data_dir

DOCS = Path(__file__).parents[2] / "docs"


def settings_page() -> str:
    """Return docs/settings.md: every setting, its default, and what it means."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable. `vidmill config show` prints what is in force,",
        "and a value that cannot be is refused at start with its name and the remedy.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = _shown(field.get_default(call_default_factory=True, validated_data={}))
        lines.append(f"| `VIDMILL_{name.upper()}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def _shown(value: object) -> str:
    if value == default_data_dir():
        return "`$XDG_DATA_HOME/vidmill`, else `~/.local/share/vidmill`"
    text = json.dumps(value) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text.strip("*") else "empty"


def metrics_page() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` answers in the text format of Prometheus: to this machine alone, or, where",
        "`VIDMILL_METRICS_TOKEN` is set, to whoever sends `Authorization: Bearer <token>`.",
        "Each process of the API counts its own requests. Queues, workers and breakers are read",
        "from the database at each scrape, so every process says the same of them: take one, or",
        "their maximum. No label holds an id, a tenant or a prompt.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    for entry in CATALOGUE:
        labels = ", ".join(f"`{name}`" for name in entry.labels)
        lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.meaning} |")
    return "\n".join(
        [*lines, "", "Beside these, `process_*` says what the process itself uses.", ""]
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "api.md": api_page,
    "openapi.json": openapi_document,
}


def stale_pages(docs: Path = DOCS) -> list[str]:
    """Return the names of pages whose file differs from what would be written now."""
    return [
        name
        for name, page in PAGES.items()
        if not (docs / name).exists() or (docs / name).read_text(encoding="utf-8") != page()
    ]


def main(arguments: list[str]) -> int:
    stale = stale_pages()
    if "--check" in arguments:
        for name in stale:
            sys.stderr.write(f"docs/{name} is out of date; run `make docs`\n")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
