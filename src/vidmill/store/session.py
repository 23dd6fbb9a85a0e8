"""Transactions: reads on one snapshot, writes whole or not at all, callbacks after the commit.

On SQLite every process has one writer thread. It takes all writes that wait, runs each as a part of
its own, and pays for one durable commit (WAL, synchronous FULL) for all of them, so that forty
request threads share an fsync instead of queueing for forty. On PostgreSQL `write` is a plain
transaction of the caller, and `begin_write`, which serves an event loop, shares commits likewise:
the rows that count a tenant's queue would make its submissions wait for each other's fsync.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import Connection, make_url

from vidmill.store import postgres, sqlite
from vidmill.store.group_commit import GroupWriter
from vidmill.store.postgres_pool import Pool
from vidmill.store.unit import UnitOfWork

__all__ = ["Connection", "Database", "UnitOfWork", "open_database"]

T = TypeVar("T")
Clock = Callable[[], float]


class Reader(Protocol):
    """Runs reads: `run` on one snapshot, `look` one statement by the shortest way."""

    def run(self, fn: Callable[[Connection], T]) -> T: ...

    def look(self, fn: Callable[[Connection], T]) -> T: ...

    def close(self) -> None: ...


class Writer(Protocol):
    """Runs units of work, each wholly or not at all."""

    def run(self, fn: Callable[[UnitOfWork], T]) -> T: ...

    def begin(
        self,
        fn: Callable[[UnitOfWork], T],
        on_done: Callable[[Callable[[], T]], object],
        order: int = 0,
    ) -> None: ...

    def close(self) -> None: ...


class Database:
    """One database, for any number of threads of a process. Open it after a fork, never before.

    Attributes:
        is_remote: Whether a call may wait for a network; an event loop leaves those to threads.
    """

    def __init__(
        self, *, reader: Reader, writer: Writer, clock: Clock, is_remote: bool = False
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self.is_remote = is_remote

    def now(self) -> float:
        """Return the database's clock, Unix seconds."""
        return self._clock()

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Return `fn(connection)`; all it reads is one snapshot, and no writer is waited for.

        Raises:
            ServiceUnavailable: The database cannot be read now.
        """
        return self._reader.run(fn)

    def look(self, fn: Callable[[Connection], T]) -> T:
        """Return `fn(connection)` where *fn* makes a single statement: `read` without its frame.

        Raises:
            ServiceUnavailable: The database cannot be read now.
        """
        return self._reader.look(fn)

    def write(self, fn: Callable[[UnitOfWork], T]) -> T:
        """Return `fn(unit)` once its work is durable; its callbacks ran then, in this thread.

        *fn* may run in another thread, in a transaction that others share, and once more if another
        transaction was in its way: it must be quick, touch nothing but the database, and never call
        `write` itself.

        Raises:
            ServiceUnavailable: A later try may succeed: the disk is full, another process holds
                the database, or it cannot be reached. Nothing was written, except that a
                connection lost during the commit leaves that unknown.
        """
        return self._writer.run(fn)

    def begin_write(
        self,
        fn: Callable[[UnitOfWork], T],
        on_done: Callable[[Callable[[], T]], object],
        *,
        order: int = 0,
    ) -> None:
        """Start what `write` does and return at once, for an event loop that must not wait.

        *on_done* is called in the writer's thread with a function that returns, or raises, what
        `write` would have; whoever calls that function runs the callbacks. *on_done* must be quick.
        *order* is the tenant's id: those that share a transaction lock tenants in this order, as
        those of other processes do, so that they wait for each other in no circle.
        """
        self._writer.begin(fn, on_done, order)

    def close(self) -> None:
        """Finish waiting writes and close all connections."""
        self._writer.close()
        self._reader.close()


def open_database(
    url: str, *, clock: Clock | None = None, connections: int = 10, patience_s: float = 10.0
) -> Database:
    """Open the database at *url*, a SQLAlchemy URL; `migrate.upgrade` its schema first.

    Args:
        url: `sqlite:////data/vidmill.db` or `postgresql://user@host/name`.
        clock: Unix seconds, where a test hands in its own.
        connections: At most so many to a server; a file has as many as there are threads.
        patience_s: A call to a server that takes longer is cut off; a worker must hear within a
            part of its lease that the database is away.

    Raises:
        ServiceUnavailable: The file cannot be opened. A server is first asked when it is needed.
        LookupError: There is no such kind of database.
    """
    kind = make_url(url).get_backend_name()
    if kind not in DIALECTS:
        raise LookupError(f"no database of kind {kind!r}; there are {', '.join(sorted(DIALECTS))}")
    return DIALECTS[kind](url, clock, connections, patience_s)


def _open_sqlite(url: str, clock: Clock | None, _connections: int, _patience_s: float) -> Database:
    clock = clock or time.time
    engine = sqlite.make_engine(url)
    writer = GroupWriter(sqlite.Writing(engine, clock=clock))
    return Database(reader=sqlite.Snapshots(engine), writer=writer, clock=clock)


def _open_postgres(url: str, clock: Clock | None, connections: int, patience_s: float) -> Database:
    engine = postgres.make_engine(url)
    pool = Pool(engine, limit=connections, clock=clock, call_s=patience_s)
    return Database(
        reader=postgres.Reading(pool),
        writer=postgres.Writing(pool, open_group=partial(GroupWriter, postgres.Link(pool))),
        clock=pool.now,
        is_remote=True,
    )


DIALECTS: dict[str, Callable[[str, Clock | None, int, float], Database]] = {
    "sqlite": _open_sqlite,
    "postgresql": _open_postgres,
}
"""How each kind of database is opened."""
