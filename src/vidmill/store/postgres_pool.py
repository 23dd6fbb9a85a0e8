"""Connections to PostgreSQL: a bounded number, each call on one watched over, and the clock."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store.group_commit import CLOSED
from vidmill.store.postgres_errors import BUSY, raise_if_momentary
from vidmill.store.turns import Turns
from vidmill.store.watchdog import Watchdog

T = TypeVar("T")

CALL_S = 10.0
"""A call without an answer is cut off after that: less than half a lease."""
WAIT_S = 5.0
"""How long a call waits for one of the process's connections."""
CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
CLOCK_KEPT_S = 30.0
"""How old the offset between the machine's clock and the server's may be for `Pool.now`."""


class Pool:
    """At most *limit* connections, opened when needed; the ones used last are used first."""

    def __init__(
        self,
        engine: Engine,
        *,
        limit: int,
        clock: Callable[[], float] | None = None,
        call_s: float = CALL_S,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._idle: deque[Connection] = deque()
        self._turns = Turns(limit)
        self._offset_s = 0.0
        self._offset_until = -1.0
        self._is_closed = False
        self.watchdog = Watchdog(call_s)

    def now(self) -> float:
        """Return the server's clock as last read, carried on by this machine's."""
        if self._clock:
            return self._clock()
        if _boot_s() > self._offset_until:
            with self.connection(lambda driver: self.note_clock(driver.execute(CLOCK))):
                """That was all."""
        return _boot_s() + self._offset_s

    def note_clock(self, cursor: Any) -> float:
        """Return the server's clock from *cursor*, or the one a test handed in."""
        server_s = float(cursor.fetchone()[0])
        self._offset_s = server_s - _boot_s()
        self._offset_until = _boot_s() + CLOCK_KEPT_S
        return self._clock() if self._clock else server_s

    @contextlib.contextmanager
    def connection(self, begin: Callable[[Any], T]) -> Iterator[tuple[Connection, T]]:
        """Give a connection and what *begin* returned of its driver.

        A connection that the server closed meanwhile is replaced, once: nothing was done on it.
        """
        if self._is_closed:
            raise ServiceUnavailable(CLOSED)
        if not self._turns.acquire(WAIT_S):
            raise ServiceUnavailable(BUSY)
        try:
            conn, begun = self._begun(begin)
            try:
                with self.watchdog.over(driver_of(conn).fileno()), _left_outside(conn):
                    yield conn, begun
            finally:
                self._give_back(conn)
        finally:
            self._turns.release()

    def open(self) -> Connection:
        """Return a new connection, which the caller closes.

        Raises:
            ServiceUnavailable: The server is not to be had.
        """
        try:
            return self._engine.connect()
        except DBAPIError as error:
            raise_if_momentary(error)
            raise

    def close(self) -> None:
        """Close what is not in use."""
        self._is_closed = True
        while self._idle:
            drop(self._idle.pop())
        self.watchdog.close()

    def _begun(self, begin: Callable[[Any], T]) -> tuple[Connection, T]:
        with contextlib.suppress(IndexError):
            conn = self._idle.pop()
            try:
                return conn, self._watched(conn, begin)
            except Exception:  # noqa: BLE001  whatever it was, a fresh connection will tell
                drop(conn)
                self.forget_idle()
        conn = self.open()
        try:
            return conn, self._watched(conn, begin)
        except BaseException as error:
            drop(conn)
            raise_if_momentary(error)
            raise

    def _watched(self, conn: Connection, begin: Callable[[Any], T]) -> T:
        driver = driver_of(conn)
        with self.watchdog.over(driver.fileno()):
            return begin(driver)

    def forget_idle(self) -> None:
        """Drop all that idles: where one was closed by the server, so were the others."""
        with contextlib.suppress(IndexError):
            while True:
                drop(self._idle.pop())

    def _give_back(self, conn: Connection) -> None:
        if self._is_closed or is_lost(conn) or is_inside(conn):
            drop(conn)
        else:
            self._idle.append(conn)


def driver_of(conn: Connection) -> Any:
    return conn.connection.driver_connection


def is_lost(conn: Connection) -> bool:
    """Whether the connection is gone; SQLAlchemy notes it first, and would then open another."""
    return conn.invalidated or bool(driver_of(conn).closed)


def is_inside(conn: Connection) -> bool:
    """Whether a transaction is open, sound or failed (libpq's PQtransactionStatus)."""
    return bool(driver_of(conn).info.transaction_status)


@contextlib.contextmanager
def _left_outside(conn: Connection) -> Iterator[None]:
    """Leave the transaction that the block leaves open."""
    try:
        yield
    finally:
        if not is_lost(conn) and is_inside(conn):
            with contextlib.suppress(Exception):
                driver_of(conn).execute("ROLLBACK")


def drop(conn: Connection) -> None:
    with contextlib.suppress(Exception):
        conn.invalidate()
    with contextlib.suppress(Exception):
        conn.close()


def _boot_s() -> float:
    """Return seconds that go on while a machine sleeps, unlike `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
