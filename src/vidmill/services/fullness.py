"""Whether the queue has room at all, whoever asks.

What a tenant may queue is checked exactly, in the transaction; this is the outer wall, and goes by
a count that is a second old.
"""

import time
from collections.abc import Callable

from vidmill.domain.errors import QueueFull
from vidmill.store import gauges
from vidmill.store.session import Database

KEPT_S = 1.0
"""Submits come thousandfold, and beyond the limit by a second of them the database stands too."""


class Fullness:
    """Counts the queue once a second for all. Safe between threads."""

    def __init__(
        self, db: Database, *, queue_total_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = db
        self._queue_total_max = queue_total_max
        self._clock = clock
        self._until = 0.0
        self._queued = 0

    def refuse_if_full(self) -> None:
        """Return at once, or raise `QueueFull`."""
        now = self._clock()
        if self._until <= now:
            self._until = now + KEPT_S  # first: one reads, the others go by what was true before
            self._queued = self._db.read(gauges.queued_in_all)
        if self._queued >= self._queue_total_max:
            raise QueueFull(
                f"{self._queued} tasks are queued here, and {self._queue_total_max} is the limit"
                " of all tenants together; try again when some have finished"
            )
