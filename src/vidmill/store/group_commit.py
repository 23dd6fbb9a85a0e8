"""Group commit: one writer thread, one durable commit for all writes that wait."""

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Engine

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import sqlite
from vidmill.store.turnstile import Turnstile
from vidmill.store.unit import UnitOfWork
from vidmill.telemetry import get_logger

log = get_logger(__name__)
T = TypeVar("T")

LOCK_WAIT_S = 10.0
"""How long a write waits for other processes; a claim or a batch takes milliseconds."""

BATCH_MAX = 256
"""Writes that share a commit; bounds how long the lock is held (about 50 ms of inserts)."""


class _Call:
    """One caller's work, and where its outcome waits for him."""

    __slots__ = ("_done", "error", "fn", "on_done", "unit", "value")

    def __init__(
        self,
        fn: Callable[[UnitOfWork], Any],
        on_done: Callable[[Callable[[], Any]], object] | None = None,
    ) -> None:
        self.fn = fn
        self.on_done = on_done
        self.value: Any = None
        self.error: BaseException | None = None
        self.unit: UnitOfWork | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self) -> None:
        self._done.release()
        if self.on_done is None:
            return
        try:
            self.on_done(self.outcome)
        except Exception:  # an event loop that was closed meanwhile must not end the writer
            log.exception("write_outcome_unheard")

    def outcome(self) -> Any:
        with self._done:
            if self.error is not None:
                raise self.error
        assert self.unit is not None, "it ran, or there would be an error"
        self.unit.committed()
        return self.value


class GroupWriter:
    """The one writer thread of this process; see `store.session` for why."""

    def __init__(
        self, engine: Engine, *, clock: Callable[[], float], lock_wait_s: float = LOCK_WAIT_S
    ) -> None:
        self._clock = clock
        self._lock_wait_s = lock_wait_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._conn = sqlite.connect(engine)
        self._turnstile = Turnstile(Path(f"{engine.url.database}-turn"))
        self._driver = cast("sqlite3.Connection", self._conn.connection.driver_connection)
        self._driver.execute("PRAGMA busy_timeout=0")  # the turnstile waits, and waits fairly
        self._door = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name="vidmill-writer", daemon=True)
        self._thread.start()

    def run(self, fn: Callable[[UnitOfWork], T]) -> T:
        if threading.current_thread() is self._thread:
            raise RuntimeError("Database.write was called inside a write; use the unit at hand")
        call = _Call(fn)
        self._put(call)
        return cast("T", call.outcome())

    def begin(
        self, fn: Callable[[UnitOfWork], T], on_done: Callable[[Callable[[], T]], object]
    ) -> None:
        self._put(_Call(fn, on_done))

    def _put(self, call: _Call) -> None:
        with self._door:
            if self._is_closed:
                raise ServiceUnavailable("The database is closed; try again after the restart.")
            self._calls.put(call)

    def close(self) -> None:
        with self._door:
            if self._is_closed:
                return
            self._is_closed = True
            self._calls.put(None)
        self._thread.join()
        self._conn.close()
        self._turnstile.close()

    def _loop(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            try:
                self._commit(batch)
            except BaseException as error:  # noqa: BLE001  the thread outlives any one batch
                self._abandon(batch, error)
            for call in batch:
                call.finish()

    def _next_batch(self) -> tuple[list[_Call], bool]:
        """Wait for one call, then take all that wait with it; False when `close` was among them."""
        batch: list[_Call] = []
        call = self._calls.get()
        while call is not None:
            batch.append(call)
            if len(batch) == BATCH_MAX:
                return batch, True
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit(self, batch: list[_Call]) -> None:
        if not batch:
            return
        if not self._turnstile.pass_through(self._begin, timeout_s=self._lock_wait_s):
            raise ServiceUnavailable(sqlite.TROUBLES["SQLITE_BUSY"])
        for call in batch:
            self._run_one(call)
        self._driver.execute("COMMIT")

    def _begin(self) -> bool:
        try:
            self._driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise
        return True

    def _run_one(self, call: _Call) -> None:
        """Run one call in its savepoint; only trouble with the database itself goes further."""
        unit = UnitOfWork(self._conn, self._clock())
        self._driver.execute("SAVEPOINT call")
        try:
            call.value = call.fn(unit)
        except BaseException as error:
            # A full disk may have rolled the whole transaction back already; then all are told.
            if not self._driver.in_transaction or sqlite.trouble_of(error):
                raise
            call.error = error
            self._driver.execute("ROLLBACK TO call")
        else:
            call.unit = unit
        self._driver.execute("RELEASE call")

    def _abandon(self, batch: list[_Call], error: BaseException) -> None:
        """Undo the batch and tell all; what had failed on its own account keeps its own error."""
        log.warning("write_failed", calls=len(batch), reason=str(getattr(error, "orig", error)))
        trouble = sqlite.trouble_of(error)
        for call in batch:
            call.error = call.error or (ServiceUnavailable(trouble) if trouble else error)
        with contextlib.suppress(sqlite3.Error):  # it may have rolled back already
            self._driver.execute("ROLLBACK")
