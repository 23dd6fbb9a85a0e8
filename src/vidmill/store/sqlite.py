"""SQLite: its connections, its reads, and which of its errors speak only of the moment."""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from vidmill.domain.errors import ServiceUnavailable

T = TypeVar("T")

PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # an accepted task survives a power cut
    "PRAGMA foreign_keys=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA journal_size_limit=67108864",
)

WRITER_PRAGMAS = ("PRAGMA cache_size=-32768",)  # KiB; the inner nodes of a million rows
READER_PRAGMAS = ("PRAGMA cache_size=-2048", "PRAGMA query_only=ON")  # one per request thread

TROUBLES = {
    "SQLITE_FULL": "The disk that holds the database is full; free some space and try again.",
    "SQLITE_IOERR": "The database's disk refuses to write or read; check it and try again.",
    "SQLITE_BUSY": "The database was locked by another process for too long; try again.",
    "SQLITE_LOCKED": "The database was locked by another process for too long; try again.",
    "SQLITE_READONLY": "The database is read-only; check the data folder's permissions.",
    "SQLITE_CANTOPEN": "The database cannot be opened; check that the data folder exists.",
}
"""Result codes that say nothing about the work, only about the moment."""


def make_engine(url: str) -> Engine:
    """Return an engine without a pool, whose connections leave BEGIN and COMMIT to us."""
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": 10.0},
    )

    def set_up(connection: Any, _record: object) -> None:
        for pragma in PRAGMAS:
            connection.execute(pragma)

    event.listen(engine, "connect", set_up)
    return engine


def connect(engine: Engine, *, read_only: bool = False) -> Connection:
    """Open a connection on which SQLAlchemy neither begins nor ends transactions.

    Raises:
        ServiceUnavailable: The file cannot be opened.
    """
    try:
        conn = engine.connect()
    except DBAPIError as error:
        raise_if_momentary(error)
        raise
    for pragma in READER_PRAGMAS if read_only else WRITER_PRAGMAS:
        conn.exec_driver_sql(pragma)
    return conn


def raise_if_momentary(error: BaseException) -> None:
    """Raise `ServiceUnavailable` where only the moment is bad, not the work."""
    trouble = trouble_of(error)
    if trouble is not None:
        raise ServiceUnavailable(trouble) from error


def trouble_of(error: BaseException) -> str | None:
    """Return what to tell people when *error* speaks of the moment, else None."""
    name = str(getattr(getattr(error, "orig", error), "sqlite_errorname", ""))
    return next((text for code, text in TROUBLES.items() if name.startswith(code)), None)


class Snapshots:
    """Reads on connections that are kept open; write-ahead logging lets them pass the writer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: deque[Connection] = deque()

    def run(self, fn: Callable[[Connection], T]) -> T:
        conn = self._take()
        driver: Any = conn.connection.driver_connection
        try:
            driver.execute("BEGIN")
            return fn(conn)
        except DBAPIError as error:
            raise_if_momentary(error)
            raise
        finally:
            if driver.in_transaction:  # a failing disk may have ended it already
                driver.execute("ROLLBACK")
            self._idle.append(conn)

    def close(self) -> None:
        """Close what is not in use."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._engine, read_only=True)
