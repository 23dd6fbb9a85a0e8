"""How coroutines wait for the database: for reads that may take a network, and durable writes."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store.session import Database, UnitOfWork

T = TypeVar("T")
Ask = TypeVar("Ask")
Got = TypeVar("Got")

ANSWER_S = 10.0
"""A request whose database is silent for so long is answered 503; most clients wait for 30 s."""


AT_ONCE = 64
"""Questions in one batch; more would make the first wait for the last."""

BATCHES = 1
"""Batches under way at once; a second competes for the interpreter and gains nothing (measured)."""


class Gathering(Generic[Ask, Got]):
    """Answers together what is asked at about the same moment, in a thread.

    Going to a thread and back, and each round trip from there, costs several times what a poll
    itself does, since all threads of a process take turns. *answer* gets the questions and returns,
    in their order, answers or the exceptions to raise instead.
    """

    def __init__(
        self, answer: Callable[[Sequence[Ask]], Sequence[Got | Exception]], threads: Executor
    ) -> None:
        self._answer = answer
        self._threads = threads
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting[Ask, Got]]
        self._of_loop = WeakKeyDictionary()

    async def ask(self, question: Ask, *, within_s: float = ANSWER_S) -> Got:
        """Return the answer to *question*.

        Raises:
            ServiceUnavailable: There was none for *within_s* seconds.
        """
        loop = asyncio.get_running_loop()
        waiting = self._of_loop.setdefault(loop, _Waiting())
        future: asyncio.Future[Got] = loop.create_future()
        waiting.line.append((question, future))
        loop.call_soon(self._next, loop, waiting)  # after those who ask in this turn of the loop
        return await _answered(future, within_s)

    def _next(self, loop: asyncio.AbstractEventLoop, waiting: "_Waiting[Ask, Got]") -> None:
        if not waiting.line or waiting.batches == BATCHES:
            return
        batch, waiting.line = waiting.line[:AT_ONCE], waiting.line[AT_ONCE:]
        waiting.batches += 1
        questions = [question for question, future in batch if not future.done()]
        asked = [future for _, future in batch if not future.done()]
        done = loop.run_in_executor(self._threads, self._answer, questions)

        def finish(done: "asyncio.Future[Sequence[Got | Exception]]") -> None:
            waiting.batches -= 1
            error = done.exception()
            answers = [error] * len(asked) if isinstance(error, Exception) else done.result()
            for future, answer in zip(asked, answers, strict=True):
                _settle(future, answer)
            self._next(loop, waiting)

        done.add_done_callback(finish)


@dataclass
class _Waiting(Generic[Ask, Got]):
    """What one event loop has asked and not been told yet."""

    line: list[tuple[Ask, asyncio.Future[Got]]] = field(default_factory=list)
    batches: int = 0


def _settle(future: "asyncio.Future[Got]", answer: Got | Exception) -> None:
    if future.done():  # given up
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


class Reads:
    """Runs what reads the database without holding up the event loop.

    A read of SQLite waits for nobody and is over in 50 µs, less than going to a thread and back;
    it runs where it is asked for. A remote database may be slow or frozen: there reads run in
    *threads* threads, and none is waited for longer than `ANSWER_S`.
    """

    def __init__(self, db: Database, *, threads: int) -> None:
        self._db = db
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vidmill-read")
        self._quick: Gathering[Callable[[], Any], Any] = Gathering(_each, self._pool)

    @property
    def is_remote(self) -> bool:
        return self._db.is_remote

    async def run(self, fn: Callable[[], T], *, within_s: float = ANSWER_S) -> T:
        """Return `fn()`.

        Raises:
            ServiceUnavailable: The database was silent for *within_s* seconds.
        """
        if not self.is_remote:
            return fn()
        future = asyncio.get_running_loop().run_in_executor(self._pool, fn)
        return await _answered(future, within_s)

    async def run_quick(self, fn: Callable[[], T]) -> T:
        """Do what `run` does, together with others, for what hardly ever asks the database.

        Raises:
            ServiceUnavailable: The database was silent for `ANSWER_S`.
        """
        if not self.is_remote:
            return fn()
        value: T = await self._quick.ask(fn)
        return value

    def gathering(
        self, answer: Callable[[Sequence[Ask]], Sequence[Got | Exception]]
    ) -> Gathering[Ask, Got]:
        """Return a way to ask *answer* many questions at a time, where the database is remote."""
        return Gathering(answer, self._pool)

    def close(self) -> None:
        """Let running reads end by themselves; those that have not begun never do."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _each(fns: Sequence[Callable[[], Any]]) -> Sequence[Any]:
    def outcome(fn: Callable[[], Any]) -> Any:
        try:
            return fn()
        except Exception as error:  # noqa: BLE001 - handed on to whoever awaits
            return error

    return [outcome(fn) for fn in fns]


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
