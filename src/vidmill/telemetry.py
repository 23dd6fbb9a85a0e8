"""Logs as events with fields. Never prompts, keys or signed URLs."""

import contextlib
import logging
import sys
from typing import Any, TextIO, cast

import structlog


def configure_logging(level: str, log_format: str) -> None:
    """Send structlog and the standard library's loggers to stderr, as JSON lines or text.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: `json`, `text`, or `auto` (text on a terminal).
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if as_text
        else structlog.processors.JSONRenderer()
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving(sys.stderr))),
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, force=True)


class _Forgiving:
    """A stream whose full disk costs the line and not the process that had something to say."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def about(**fields: Any) -> contextlib.AbstractContextManager[Any]:
    """Put *fields* into every line that this thread logs meanwhile."""
    return structlog.contextvars.bound_contextvars(**fields)


def get_logger(name: str) -> Any:
    """Return a structlog logger bound to *name* as `component`."""
    return structlog.get_logger(component=name)
