"""Group commit: one writer thread, one durable commit for all writes that wait."""

import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Connection

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store.unit import UnitOfWork
from vidmill.telemetry import get_logger

log = get_logger(__name__)
T = TypeVar("T")

CLOSED = "The database is closed; try again after the restart."


class Link(Protocol):
    """The writer's own connection, and how its kind of database makes a transaction of many."""

    batch_max: int
    """Writes that share a commit; bounds how long its locks are held."""

    @property
    def conn(self) -> Connection: ...

    def begin(self, *, is_last: bool) -> float:
        """Begin a transaction; return the database's clock, Unix seconds.

        Unless *is_last*, a collision will be tried again, so that it is better told soon.

        Raises:
            ServiceUnavailable: Not now.
        """
        ...

    def mark(self) -> None:
        """Begin the part that `undo` would undo."""
        ...

    def undo(self) -> bool:
        """Undo what was done since `mark`; False where that can only be done with all the rest."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None:
        """Leave the transaction, whatever state it is in. Never raises."""
        ...

    def is_over(self) -> bool:
        """Whether the transaction has ended by itself: the disk is full, the connection lost."""
        ...

    def trouble_of(self, error: BaseException) -> str | None:
        """Return what to tell people when *error* speaks of the moment, else None."""
        ...

    def is_collision(self, error: BaseException) -> bool:
        """Whether *error* only says that another transaction was in the way."""
        ...

    def close(self) -> None: ...


class _Call:
    """One caller's work, and where its outcome waits for him."""

    __slots__ = ("_done", "error", "fn", "on_done", "order", "unit", "value")

    def __init__(
        self,
        fn: Callable[[UnitOfWork], Any],
        on_done: Callable[[Callable[[], Any]], object] | None = None,
        order: int = 0,
    ) -> None:
        self.fn = fn
        self.order = order
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


class _Spoilt(Exception):
    """A call failed on its own account, and its part cannot be undone without the others'."""


class GroupWriter:
    """The one writer thread of this process; see `store.session` for why."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
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
        self,
        fn: Callable[[UnitOfWork], T],
        on_done: Callable[[Callable[[], T]], object],
        order: int = 0,
    ) -> None:
        self._put(_Call(fn, on_done, order))

    def _put(self, call: _Call) -> None:
        with self._door:
            if self._is_closed:
                raise ServiceUnavailable(CLOSED)
            self._calls.put(call)

    def close(self) -> None:
        with self._door:
            if self._is_closed:
                return
            self._is_closed = True
            self._calls.put(None)
        self._thread.join()
        self._link.close()

    def _loop(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            self._attempt(batch)
            for call in batch:
                call.finish()

    def _next_batch(self) -> tuple[list[_Call], bool]:
        """Wait for one call, then take all that wait with it; False when `close` was among them."""
        batch: list[_Call] = []
        call = self._calls.get()
        while call is not None:
            batch.append(call)
            if len(batch) == self._link.batch_max:
                return batch, True
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _attempt(self, batch: list[_Call], *, is_last: bool = False) -> None:
        try:
            self._commit(batch, is_last=is_last)
        except _Spoilt:
            self._link.rollback()
            if not is_last:
                self._attempt_each(batch)
        except BaseException as error:  # noqa: BLE001  the thread outlives any one batch
            self._link.rollback()
            if self._link.is_collision(error) and not is_last:
                self._attempt_each(batch)
            else:
                self._abandon(batch, error)

    def _attempt_each(self, batch: list[_Call]) -> None:
        """Once more, one by one: alone, a call takes its locks in the order everybody keeps."""
        for call in batch:
            call.error = call.unit = None
            self._attempt([call], is_last=True)

    def _commit(self, batch: list[_Call], *, is_last: bool) -> None:
        if not batch:
            return
        now = self._link.begin(is_last=is_last)
        for call in sorted(batch, key=lambda call: call.order):
            self._run_one(call, now)
        self._link.commit()

    def _run_one(self, call: _Call, now: float) -> None:
        """Run one call on its own part; only trouble with the database itself goes further."""
        unit = UnitOfWork(self._link.conn, now)
        self._link.mark()
        try:
            call.value = call.fn(unit)
        except BaseException as error:
            # A full disk may have rolled the whole transaction back already; then all are told.
            is_ours = self._link.trouble_of(error) or self._link.is_collision(error)
            if self._link.is_over() or is_ours:
                raise
            call.error = error
            if not self._link.undo():
                raise _Spoilt from error
        else:
            call.unit = unit

    def _abandon(self, batch: list[_Call], error: BaseException) -> None:
        """Tell all; what had failed on its own account keeps its own error."""
        log.warning("write_failed", calls=len(batch), reason=str(getattr(error, "orig", error)))
        trouble = self._link.trouble_of(error)
        for call in batch:
            call.error = call.error or (ServiceUnavailable(trouble) if trouble else error)
