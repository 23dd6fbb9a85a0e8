"""A unit of work: one transaction, and what is to happen only once it is durable."""

from collections.abc import Callable

from sqlalchemy import Connection


class UnitOfWork:
    """What a write function is given.

    Attributes:
        conn: Inside the transaction; never commit it or keep it.
        now: The database's clock when the work began, Unix seconds.
    """

    __slots__ = ("_callbacks", "conn", "now")

    def __init__(self, conn: Connection, now: float) -> None:
        self.conn = conn
        self.now = now
        self._callbacks: list[Callable[[], object]] = []

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Call *callback* after the commit, in the asking thread; never after a rollback."""
        self._callbacks.append(callback)

    def committed(self) -> None:
        """Run the callbacks; for the writer alone."""
        for callback in self._callbacks:
            callback()
