"""Transactions: reads on their own snapshot, writes one at a time, callbacks after the commit.

On SQLite every process has one writer thread. It takes all writes that wait, runs each inside its
own savepoint, and pays for one durable commit (WAL, synchronous FULL) for all of them, so that
forty request threads share an fsync instead of queueing for forty. A database with row locks needs
none of this: there `write` is a plain transaction of the caller, behind the same two methods.
"""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection, make_url

from vidmill.store import sqlite
from vidmill.store.group_commit import GroupWriter
from vidmill.store.unit import UnitOfWork

__all__ = ["Connection", "Database", "UnitOfWork", "open_database"]

T = TypeVar("T")
Clock = Callable[[], float]


class Reader(Protocol):
    """Runs reads, each on one snapshot."""

    def run(self, fn: Callable[[Connection], T]) -> T: ...

    def close(self) -> None: ...


class Writer(Protocol):
    """Runs units of work, each wholly or not at all."""

    def run(self, fn: Callable[[UnitOfWork], T]) -> T: ...

    def begin(
        self, fn: Callable[[UnitOfWork], T], on_done: Callable[[Callable[[], T]], object]
    ) -> None: ...

    def close(self) -> None: ...


class Database:
    """One database, for any number of threads of a process. Open it after a fork, never before."""

    def __init__(self, *, reader: Reader, writer: Writer, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock

    def now(self) -> float:
        """Return the database's clock, Unix seconds."""
        return self._clock()

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Return `fn(connection)`; all it reads is one snapshot, and no writer is waited for.

        Raises:
            ServiceUnavailable: The database cannot be read now.
        """
        return self._reader.run(fn)

    def write(self, fn: Callable[[UnitOfWork], T]) -> T:
        """Return `fn(unit)` once its work is durable; its callbacks ran then, in this thread.

        *fn* runs in the writer's thread, inside a transaction that others share: it must be quick,
        touch nothing but the database, and never call `write` itself.

        Raises:
            ServiceUnavailable: Nothing was written, and a later try may succeed: the disk is
                full or another process holds the database.
        """
        return self._writer.run(fn)

    def begin_write(
        self, fn: Callable[[UnitOfWork], T], on_done: Callable[[Callable[[], T]], object]
    ) -> None:
        """Start what `write` does and return at once, for an event loop that must not wait.

        *on_done* is called in the writer's thread with a function that returns, or raises, what
        `write` would have; whoever calls that function runs the callbacks. *on_done* must be quick.
        """
        self._writer.begin(fn, on_done)

    def close(self) -> None:
        """Finish waiting writes and close all connections."""
        self._writer.close()
        self._reader.close()


def open_database(url: str, *, clock: Clock | None = None) -> Database:
    """Open the database at *url*, a SQLAlchemy URL; `migrate.upgrade` its schema first.

    Args:
        url: `sqlite:////data/vidmill.db`.
        clock: Unix seconds, where a test hands in its own.
    """
    clock = clock or time.time
    open_dialect = DIALECTS[make_url(url).get_backend_name()]
    return open_dialect(url, clock)


def _open_sqlite(url: str, clock: Clock) -> Database:
    engine = sqlite.make_engine(url)
    writer = GroupWriter(engine, clock=clock)
    return Database(reader=sqlite.Snapshots(engine), writer=writer, clock=clock)


DIALECTS: dict[str, Callable[[str, Clock], Database]] = {"sqlite": _open_sqlite}
"""How each kind of database is opened."""
