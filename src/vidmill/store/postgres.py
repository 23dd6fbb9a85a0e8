"""PostgreSQL 15+: its connections, its reads and its writes."""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store.group_commit import CLOSED, GroupWriter
from vidmill.store.postgres_errors import (
    AWAY,
    is_collision,
    keep_rows_private,
    raise_if_momentary,
    trouble_of,
)
from vidmill.store.postgres_pool import CLOCK, Pool, driver_of, drop, is_lost
from vidmill.store.unit import UnitOfWork

T = TypeVar("T")

CONNECT_S = 3
STATEMENT_S = 8
"""The server gives up a statement after that; nothing here takes a tenth of it."""
TRIES = 3
"""Of a write that collided with another; the loser of a deadlock hardly ever loses twice."""

OPTIONS = (
    f"-c statement_timeout={STATEMENT_S}s -c timezone=UTC"
    " -c idle_in_transaction_session_timeout=30s -c synchronous_commit=on"
)
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
LOCK_S = 5.0
"""How long a write waits for others' locks; a batch of 10,000 jobs holds some for a second."""
HASTE_S = 0.3
"""The same while tries are left. The server looks for a deadlock only after a second, and most of
those who wait so long are in one: trying again ends it sooner."""
_BEGIN = "BEGIN; SET LOCAL lock_timeout = {lock_ms:.0f}; " + CLOCK


def make_engine(url: str) -> Engine:
    """Return an engine without a pool, whose connections leave BEGIN and COMMIT to us."""
    parsed = make_url(url)
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg").difference_update_query(["options"]),
        poolclass=NullPool,
        hide_parameters=True,  # an error is logged: it must not tell prompts and secrets
        isolation_level="AUTOCOMMIT",
        connect_args={
            "connect_timeout": CONNECT_S,
            "options": f"{OPTIONS} {parsed.query.get('options', '')}",
            "application_name": "vidmill",
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
        },
    )
    event.listen(engine, "handle_error", keep_rows_private)
    return engine


class Reading:
    """Reads: on one snapshot, or one statement by itself."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def run(self, fn: Callable[[Connection], T]) -> T:
        with self._pool.connection(lambda driver: driver.execute(_SNAPSHOT)) as (conn, _):
            return _told(fn, conn)

    def look(self, fn: Callable[[Connection], T]) -> T:
        for _ in range(2):  # a statement that only reads may be sent twice
            with self._pool.connection(_nothing) as (conn, _begun):
                try:
                    return fn(conn)
                except DBAPIError as error:
                    if not is_lost(conn):
                        raise_if_momentary(error)
                        raise
            self._pool.forget_idle()
        raise ServiceUnavailable(AWAY)

    def close(self) -> None:
        self._pool.close()


class Writing:
    """Writes: each its own transaction; those of an event loop share the group writer's."""

    def __init__(self, pool: Pool, *, open_group: Callable[[], GroupWriter]) -> None:
        self._pool = pool
        self._open_group = open_group
        self._group: GroupWriter | None = None
        self._lock = threading.Lock()
        self._inside = threading.local()
        self._is_closed = False

    def run(self, fn: Callable[[UnitOfWork], T]) -> T:
        if getattr(self._inside, "is_writing", False):
            raise RuntimeError("Database.write was called inside a write; use the unit at hand")
        self._inside.is_writing = True
        try:
            unit, value = self._attempts(fn)
        finally:
            self._inside.is_writing = False
        unit.committed()
        return value

    def begin(
        self,
        fn: Callable[[UnitOfWork], T],
        on_done: Callable[[Callable[[], T]], object],
        order: int = 0,
    ) -> None:
        with self._lock:
            if self._is_closed:
                raise ServiceUnavailable(CLOSED)
            self._group = self._group or self._open_group()
        self._group.begin(fn, on_done, order)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        if self._group:
            self._group.close()

    def _attempts(self, fn: Callable[[UnitOfWork], T]) -> tuple[UnitOfWork, T]:
        for _ in range(TRIES - 1):
            try:
                return self._attempt(fn, lock_s=HASTE_S)
            except DBAPIError as error:
                if not is_collision(error):
                    raise
            time.sleep(random.uniform(0.0, 0.02))
        try:
            return self._attempt(fn, lock_s=LOCK_S)
        except DBAPIError as error:
            raise_if_momentary(error)
            raise

    def _attempt(self, fn: Callable[[UnitOfWork], T], *, lock_s: float) -> tuple[UnitOfWork, T]:
        def begun(driver: Any) -> float:
            return begin(self._pool, driver, lock_s=lock_s)

        with self._pool.connection(begun) as (conn, now):
            unit = UnitOfWork(conn, now)
            value = _told(fn, unit)
            _told(commit, driver_of(conn))
            return unit, value


class Link:
    """The group writer's link; see `store.group_commit`."""

    # A transaction finds the row that counts by way of all the versions it made of it before: a job
    # in a batch of 128 cost 0.7 ms of the server, in one of 32 0.4 (measured).
    batch_max = 48

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._opened: Connection | None = None
        self._watch: contextlib.AbstractContextManager[None] | None = None

    @property
    def conn(self) -> Connection:
        assert self._opened is not None, "`begin` opened it"
        return self._opened

    def begin(self, *, is_last: bool) -> float:
        """Begin on the connection there is; if the server has closed it, on a new one."""
        lock_s = LOCK_S if is_last else HASTE_S
        if self._opened is not None:
            try:
                return self._begin(self._opened, lock_s)
            except Exception:  # noqa: BLE001  whatever it was, a fresh connection will tell
                self._let_go()
        self._opened = self._pool.open()
        return self._begin(self._opened, lock_s)

    def _begin(self, conn: Connection, lock_s: float) -> float:
        self._watch = self._pool.watchdog.over(driver_of(conn).fileno())
        self._watch.__enter__()
        return begin(self._pool, driver_of(conn), lock_s=lock_s)

    def mark(self) -> None:
        """Do nothing: a savepoint a call would be a third of its round trips, and few calls fail.

        One that does makes the others of its group run once more, each by itself.
        """

    def undo(self) -> bool:
        return False

    def commit(self) -> None:
        commit(driver_of(self.conn))
        self._unwatch()

    def rollback(self) -> None:
        try:
            if self._opened is not None:
                driver_of(self._opened).execute("ROLLBACK")
                self._unwatch()
        except Exception:  # noqa: BLE001  then the connection is no good
            self._let_go()

    def is_over(self) -> bool:
        return is_lost(self.conn)

    def trouble_of(self, error: BaseException) -> str | None:
        return trouble_of(error)

    def is_collision(self, error: BaseException) -> bool:
        return is_collision(error)

    def close(self) -> None:
        self._let_go()

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch:
            watch.__exit__(None, None, None)

    def _let_go(self) -> None:
        self._unwatch()
        conn, self._opened = self._opened, None
        if conn is not None:
            drop(conn)


def begin(pool: Pool, driver: Any, *, lock_s: float) -> float:
    """Begin a transaction and read the server's clock, in one round trip."""
    lock_ms = lock_s * random.uniform(700.0, 1000.0)  # of two who wait for each other one stays
    cursor = driver.execute(_BEGIN.format(lock_ms=lock_ms))
    while cursor.nextset():
        """Of three results only the last has a row."""
    return pool.note_clock(cursor)


def commit(driver: Any) -> None:
    """Commit; the server answers `ROLLBACK`, and no error, where a statement had failed."""
    if driver.execute("COMMIT").statusmessage != "COMMIT":
        raise RuntimeError("a statement of this write failed, and the error was swallowed")


def _told(fn: Callable[[Any], T], argument: Any) -> T:
    try:
        return fn(argument)
    except Exception as error:
        if not is_collision(error):
            raise_if_momentary(error)
        raise


def _nothing(_driver: Any) -> None: ...
