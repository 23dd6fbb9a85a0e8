"""SQLite: its connections, its reads, its writer's link, and which errors are of the moment."""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store.turnstile import Turnstile

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

LOCK_WAIT_S = 10.0
"""How long a write waits for other processes; a claim or a batch takes milliseconds."""

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
        hide_parameters=True,  # an error is logged: it must not tell prompts and secrets
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

    def look(self, fn: Callable[[Connection], T]) -> T:
        return self.run(fn)

    def close(self) -> None:
        """Close what is not in use."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._engine, read_only=True)


class Writing:
    """The group writer's link; see `store.group_commit`."""

    batch_max = 256  # about 50 ms of inserts

    def __init__(
        self, engine: Engine, *, clock: Callable[[], float], lock_wait_s: float = LOCK_WAIT_S
    ) -> None:
        self._clock = clock
        self._lock_wait_s = lock_wait_s
        self.conn = connect(engine)
        self._turnstile = Turnstile(Path(f"{engine.url.database}-turn"))
        self._driver = cast("sqlite3.Connection", self.conn.connection.driver_connection)
        self._driver.execute("PRAGMA busy_timeout=0")  # the turnstile waits, and waits fairly
        self._is_marked = False

    def begin(self, *, is_last: bool) -> float:  # noqa: ARG002  one writer, no collisions
        self._is_marked = False
        if not self._turnstile.pass_through(self._seize, timeout_s=self._lock_wait_s):
            raise ServiceUnavailable(TROUBLES["SQLITE_BUSY"])
        return self._clock()

    def _seize(self) -> bool:
        try:
            self._driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise
        return True

    def mark(self) -> None:
        if self._is_marked:
            self._driver.execute("RELEASE part")
        self._driver.execute("SAVEPOINT part")
        self._is_marked = True

    def undo(self) -> bool:
        self._driver.execute("ROLLBACK TO part")
        return True

    def commit(self) -> None:
        self._driver.execute("COMMIT")

    def rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it may have rolled back already
            self._driver.execute("ROLLBACK")

    def is_over(self) -> bool:
        return not self._driver.in_transaction

    def trouble_of(self, error: BaseException) -> str | None:
        return trouble_of(error)

    def is_collision(self, _error: BaseException) -> bool:
        return False  # there is one writer at a time

    def close(self) -> None:
        self.conn.close()
        self._turnstile.close()
