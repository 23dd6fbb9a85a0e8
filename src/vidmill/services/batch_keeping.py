"""The jobs of batches follow the state of their batch: paused, resumed, cancelled, ended.

The state is durable first; then jobs are moved part by part. What a process could not finish,
because it died or ran out of time, the controller does by `tend`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from vidmill.domain.batch import BatchState
from vidmill.domain.ports import EventBus, TicketSource
from vidmill.services.lifecycle import announce, stop
from vidmill.store import batch_moves, batches, jobs
from vidmill.store.batches import Batch
from vidmill.store.session import Database, UnitOfWork

PATIENCE_S = 5.0
"""How long a request itself moves jobs; the controller goes on."""

FORGOTTEN_AT_ONCE = 5
"""Batches of up to 10,000 rows deleted in one transaction."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a batch comes into a state, and what then becomes of its jobs.

    Attributes:
        becoming: What is asked for, as a word of refusals: it can be "paused".
        sweeps: 2 where the first makes room for more: a leader goes after those who follow it.
    """

    begins: frozenset[BatchState]
    becoming: str
    move: batch_moves.Move
    sweeps: int = 1


CHANGES: Mapping[BatchState, Change] = {
    BatchState.PAUSED: Change(
        begins=frozenset({BatchState.PROCESSING}), becoming="paused", move=batch_moves.pause
    ),
    BatchState.PROCESSING: Change(
        begins=frozenset({BatchState.PAUSED}), becoming="resumed", move=batch_moves.resume
    ),
    BatchState.CANCELLING: Change(
        begins=frozenset({BatchState.PROCESSING, BatchState.PAUSED}),
        becoming="cancelled",
        move=batch_moves.cancel,
        sweeps=2,
    ),
}


@dataclass(frozen=True, kw_only=True)
class BatchKeeper:
    """Moves the jobs of batches. `patience_s`: see `PATIENCE_S`."""

    db: Database
    bus: EventBus
    tickets: TicketSource
    patience_s: float = PATIENCE_S
    monotonic: Callable[[], float] = time.monotonic

    def tend(self) -> None:
        """Do what requests left undone, end what is over, and forget what nobody confirmed."""
        for batch in self.db.read(batches.waiting):
            if batch.is_moving:
                self.move(batch)
            self.end(batch.id)
        self.db.write(_forget)

    def move(self, batch: Batch) -> None:
        """Bring the jobs of *batch* where its state wants them, as far as there is time."""
        until = self.monotonic() + self.patience_s
        change = CHANGES[batch.state]
        for _ in range(change.sweeps):
            after: int | None = 0
            while after is not None:
                if self.monotonic() >= until:
                    return
                after = self.db.write(partial(self._move_part, batch, change.move, after))
        if batch.state is BatchState.CANCELLING:
            halt = partial(stop, bus=self.bus, tickets=self.tickets)
            for job in self.db.write(lambda uow: batch_moves.left(uow, batch)):
                if self.monotonic() >= until:
                    return
                self.db.write(partial(halt, task_id=job.public_id, tenant_id=job.tenant_id))
        self.db.write(lambda uow: batches.settled(uow, batch))

    def _move_part(
        self, batch: Batch, move: batch_moves.Move, after: int, uow: UnitOfWork
    ) -> int | None:
        moved = move(uow, batch, after)
        for job in moved.jobs:
            announce(uow, jobs.Settled(job=job), bus=self.bus, tickets=self.tickets)
        return moved.after

    def end(self, batch_id: int) -> None:
        """End the batch if nothing of it is under way; of several that try, one does."""
        self.db.write(lambda uow: batches.end(uow, batch_id))


def _forget(uow: UnitOfWork) -> None:
    for batch in batches.expired(uow, limit=FORGOTTEN_AT_ONCE):
        batches.remove(uow, batch)
