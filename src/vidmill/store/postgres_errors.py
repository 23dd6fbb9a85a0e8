"""Which errors of PostgreSQL speak only of the moment, and which of another transaction."""

from sqlalchemy import ExceptionContext

from vidmill.domain.errors import ServiceUnavailable

AWAY = "The database cannot be reached; try again in a moment."
BUSY = "The database is too busy; try again in a moment."
TROUBLES = {
    "53100": "The disk that holds the database is full; free some space and try again.",
    "53": BUSY,  # too many connections, out of memory
    "40": BUSY,  # collided with others, again and again
    "57014": BUSY,  # statement_timeout
    "55P03": BUSY,  # lock_timeout
    "57P": AWAY,  # shutting down, starting up
    "58": "The database's disk refuses to write or read; check it and try again.",
    "25006": "The database is read-only: this is not the primary; check VIDMILL_DATABASE_URL.",
    "25P03": AWAY,  # idle_in_transaction_session_timeout
    "08": AWAY,
}
"""SQLSTATE or the beginning of one (PostgreSQL manual, appendix A); the longest match counts."""
COLLISIONS = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, and a lock waited for too long, which most often is one."""

_ABOUT_VALUES = ("22", "23")
"""Data exceptions and broken constraints; the DETAIL of a deadlock, say, is for the log."""


def sqlstate(error: BaseException) -> str:
    return str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")


def is_collision(error: BaseException) -> bool:
    """Whether the same again may well succeed."""
    return sqlstate(error) in COLLISIONS


def trouble_of(error: BaseException) -> str | None:
    """Return what to tell people when *error* speaks of the moment, else None."""
    state = sqlstate(error)
    matches = [code for code in TROUBLES if state.startswith(code)]
    if matches:
        return TROUBLES[max(matches, key=len)]
    original = getattr(error, "orig", error)
    is_lost = not state and type(original).__name__ in {"OperationalError", "ConnectionTimeout"}
    return AWAY if is_lost else None


def raise_if_momentary(error: BaseException) -> None:
    """Raise `ServiceUnavailable` where only the moment is bad, not the work."""
    trouble = trouble_of(error)
    if trouble is not None:
        raise ServiceUnavailable(trouble) from error


def keep_rows_private(context: ExceptionContext) -> None:
    """Cut what PostgreSQL quotes of a row that it refused: errors are logged, prompts are not."""
    if not sqlstate(context.original_exception).startswith(_ABOUT_VALUES):
        return
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None and error.args:
            error.args = (str(error.args[0]).partition("\nDETAIL:")[0], *error.args[1:])
