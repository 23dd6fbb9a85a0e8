"""How coroutines wait for the database: for reads that may take a network, and durable writes."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store.session import Database, UnitOfWork

T = TypeVar("T")

ANSWER_S = 10.0
"""A request whose database is silent for so long is answered 503; most clients wait for 30 s."""


class Reads:
    """Runs what reads the database without holding up the event loop.

    A read of SQLite waits for nobody and is over in 50 µs, less than going to a thread and back;
    it runs where it is asked for. A remote database may be slow or frozen: there reads run in
    *threads* threads, and none is waited for longer than `ANSWER_S`.
    """

    def __init__(self, db: Database, *, threads: int) -> None:
        self._db = db
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vidmill-read")

    async def run(self, fn: Callable[[], T], *, within_s: float = ANSWER_S) -> T:
        """Return `fn()`.

        Raises:
            ServiceUnavailable: The database was silent for *within_s* seconds.
        """
        if not self._db.is_remote:
            return fn()
        future = asyncio.get_running_loop().run_in_executor(self._pool, fn)
        return await _answered(future, within_s)

    def close(self) -> None:
        """Let running reads end by themselves; those that have not begun never do."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def write(db: Database, fn: Callable[[UnitOfWork], T], *, order: int = 0) -> T:
    """Return what `db.write(fn)` returns, without a thread that waits for the commit.

    With 32 connections a thread each costs more than the insert itself. A write that has not begun
    when its request is given up writes nothing. *order* is that of `begin_write`.

    Raises:
        ServiceUnavailable: As `db.write`, or the database was silent for `ANSWER_S`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def unless_given_up(uow: UnitOfWork) -> T:
        if future.done():
            raise ServiceUnavailable("the request was given up before its turn came")
        return fn(uow)

    def settle(outcome: Callable[[], T]) -> None:
        try:
            value = outcome()
        except Exception as error:  # noqa: BLE001 - handed on to whoever awaits
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(value)

    def on_done(outcome: Callable[[], T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    db.begin_write(unless_given_up, on_done, order=order)
    return await _answered(future, ANSWER_S)


async def _answered(future: asyncio.Future[T], within_s: float) -> T:
    try:
        async with asyncio.timeout(within_s):
            return await future
    except TimeoutError:
        raise ServiceUnavailable(
            f"the database did not answer within {within_s:g} s; try again"
        ) from None
