"""Batches: many orders checked and priced together, queued together once confirmed, then managed.

A change of state is durable at once; the jobs follow it, see `batch_keeping`.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vidmill.domain.batch import OPEN, BatchState, RowState
from vidmill.domain.errors import (
    BatchNotFound,
    BatchStateConflict,
    QueueFull,
    QuotaExceeded,
)
from vidmill.domain.eta import Interval
from vidmill.domain.ids import RANDOM_BITS, public_name, task_id
from vidmill.domain.job import Job
from vidmill.domain.order import Order
from vidmill.services.access import Caller
from vidmill.services.batch_checks import (
    Accept,
    Candidate,
    checked_rows,
    links_of,
    refuse_unless_as_told,
)
from vidmill.services.batch_keeping import CHANGES, BatchKeeper
from vidmill.services.idempotency import IdempotencyKey, is_first, owner_of
from vidmill.services.submission import Submission
from vidmill.services.tasks import Tasks
from vidmill.store import batches
from vidmill.store.batches import Batch, BatchRow, NewBatch, NewRow, Tally
from vidmill.store.session import Connection, Database, UnitOfWork

KEPT_S = 86_400.0
"""How long a checked batch waits to be confirmed."""

UNCONFIRMED_MAX = 100
"""Checked batches a tenant may have: each may hold 10,000 rows."""

READ_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a batch is besides its rows. `source` tells how the rows were read."""

    name: str | None = None
    webhook_url: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BatchView:
    """A batch as its owner sees it now.

    Attributes:
        finish: When its last task will be done.
        is_replay: The same request under the same key was answered before.
    """

    batch: Batch
    tally: Tally
    finish: Interval | None = None
    is_replay: bool = False

    def count(self, *states: RowState) -> int:
        return sum(self.tally.rows.get(state, 0) for state in states)

    def credits(self, *states: RowState) -> int:
        return sum(self.tally.credits.get(state, 0) for state in states)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What can be done with batches.

    Attributes:
        kept_s: How long a checked one waits to be confirmed.
        random_bits: Gives that many random bits, for ids.
    """

    db: Database
    submission: Submission
    tasks: Tasks
    keeper: BatchKeeper
    kept_s: float = KEPT_S
    random_bits: Callable[[int], int] = secrets.randbits

    def check(
        self,
        candidates: Sequence[Candidate],
        caller: Caller,
        sheet: Sheet,
        *,
        key: IdempotencyKey | None = None,
    ) -> BatchView:
        """Price every row, say what is wrong with it, and keep the batch for a day.

        Raises:
            IdempotencyKeyReused: *key* stands for another request.
            QuotaExceeded: Too many batches of the tenant wait to be confirmed.
            ServiceUnavailable: The database takes no writes now.
        """
        rows = checked_rows(candidates, lambda order: self.submission.quote(order, caller))

        def write(uow: UnitOfWork) -> tuple[str, bool]:
            new = self._new(rows, caller, sheet, now=uow.now)
            owner = owner_of(uow, caller, key, new.public_id)
            if owner == new.public_id:
                _refuse_many(uow, caller)
                batches.add(uow, new)
            return owner, owner != new.public_id

        batch_id, is_replay = self.db.write(write)
        finish = self._foresee(rows, caller)
        return replace(self.get(batch_id, caller), is_replay=is_replay, finish=finish)

    def get(self, batch_id: str, caller: Caller) -> BatchView:
        """Return the caller's batch.

        Raises:
            BatchNotFound: There is none, or it is somebody else's, or it was not confirmed in time.
        """
        view = self.find(batch_id, caller.tenant_id)
        if view is None:
            raise _not_found(batch_id)
        return view

    def find(self, batch_id: str, tenant_id: int) -> BatchView | None:
        """Return the tenant's batch, or None. One whose last task is over is ended by this."""
        now = self.db.now()

        def look(conn: Connection) -> tuple[Batch, Tally, Job | None] | None:
            batch = batches.get(conn, batch_id, tenant_id, now=now)
            if batch is None:
                return None
            return batch, batches.tally(conn, batch.id), _last(conn, batch)

        found = self.db.read(look)
        if found is None:
            return None
        batch, tally, last = found
        if batch.state in OPEN and last is None:
            self.keeper.end(batch.id)
            return self.find(batch_id, tenant_id)
        return BatchView(batch=batch, tally=tally, finish=self._finish(last))

    def page(self, caller: Caller, *, after: int | None, limit: int) -> list[BatchView]:
        """Return up to *limit* of the tenant's batches, newest first, that follow *after*."""
        now = self.db.now()

        def look(conn: Connection) -> list[BatchView]:
            found = batches.page(conn, caller.tenant_id, limit=limit, now=now, after=after)
            return [BatchView(batch=one, tally=batches.tally(conn, one.id)) for one in found]

        return self.db.read(look)

    def rows(
        self,
        batch: Batch,
        *,
        after: int = 0,
        limit: int = READ_AT_ONCE,
        states: Sequence[RowState] = tuple(RowState),
    ) -> list[BatchRow]:
        """Return up to *limit* rows in *states* that follow row number *after*."""
        return self.db.read(
            lambda conn: batches.rows(conn, batch.id, after=after, limit=limit, states=states)
        )

    def all_rows(self, batch: Batch, states: Sequence[RowState]) -> Iterator[BatchRow]:
        """Yield all rows in *states*, read part by part, each part as it is then."""
        after = 0
        while part := self.rows(batch, after=after, states=states):
            yield from part
            after = part[-1].number

    def confirm(
        self,
        batch_id: str,
        caller: Caller,
        accept: Accept,
        *,
        key: IdempotencyKey | None = None,
    ) -> BatchView:
        """Queue the rows that are ready, all at once; done again it changes nothing.

        Raises:
            BatchNotFound: As `get`.
            BatchStateConflict: No row is ready; or not all are, and *accept* wants all; or the
                price has risen since.
            QueueFull, QuotaExceeded, ServiceUnavailable: As `Submission.accept_many`.
        """
        batch = self.get(batch_id, caller).batch
        if batch.state is not BatchState.CHECKED:
            return replace(self.get(batch_id, caller), is_replay=True)
        ready = list(self.all_rows(batch, [RowState.READY]))
        orders = [Order(**row.wanted) for row in ready if row.wanted is not None]
        queue = self.submission.accept_many(orders, caller)

        def write(uow: UnitOfWork) -> None:
            held = _hold(uow, batch_id, caller)
            owner_of(uow, caller, key, batch_id)
            if held.state is not BatchState.CHECKED:
                return
            told = batches.tally(uow.conn, held.id)
            links = links_of(ready, queue(uow))
            refuse_unless_as_told(links, told, accept)
            batches.link(uow, held.id, links, was=RowState.READY)
            batches.set_state(
                uow, held, BatchState.PROCESSING, confirmed_at=uow.now, expires_at=None
            )

        self.db.write(write)
        return self.get(batch_id, caller)

    def rerun_failed(
        self, batch_id: str, caller: Caller, *, key: IdempotencyKey | None = None
    ) -> BatchView:
        """Queue each row that failed once more, as a new task with the same seed.

        Raises:
            BatchNotFound: As `get`.
            BatchStateConflict: None failed, or the batch is in a state that forbids it.
            QueueFull, QuotaExceeded, ServiceUnavailable: As `Submission.accept_many`.
        """
        batch = self.get(batch_id, caller).batch
        failed = [row for row in self.all_rows(batch, [RowState.FAILED]) if row.job is not None]
        again = [row.job for row in failed if row.job]
        queue = self.submission.accept_many_again(again, caller, key=key)

        def write(uow: UnitOfWork) -> bool:
            held = _hold(uow, batch_id, caller)
            # Asked before a row is stored: what a tenant may have waiting is full of the first run.
            if not is_first(uow, caller, key, batch_id):
                return True
            _refuse_state(held, _RUNS_AGAIN, "run failed rows again")
            links = [one for one in links_of(failed, queue(uow)) if one.job is not None]
            if not links:
                raise BatchStateConflict("no row of the batch can be run again; none failed")
            if batches.link(uow, held.id, links, was=RowState.FAILED) != len(links):
                raise BatchStateConflict("somebody else runs them again at this moment")
            batches.set_state(uow, held, BatchState.PROCESSING, finished_at=None)
            return False

        is_replay = self.db.write(write)
        return replace(self.get(batch_id, caller), is_replay=is_replay)

    def pause(self, batch_id: str, caller: Caller) -> BatchView:
        """Let nothing more of the batch be begun. What runs goes on, its retries included.

        Raises:
            BatchNotFound, BatchStateConflict: There is none, or it is not being processed.
        """
        return self._change(batch_id, caller, BatchState.PAUSED)

    def resume(self, batch_id: str, caller: Caller) -> BatchView:
        """Go on with a paused batch; its tasks wait where they stood before.

        Raises:
            BatchNotFound, BatchStateConflict: There is none, or it is not paused.
        """
        return self._change(batch_id, caller, BatchState.PROCESSING)

    def cancel(self, batch_id: str, caller: Caller) -> BatchView:
        """Cancel every task that waits and stop every one that runs.

        Raises:
            BatchNotFound, BatchStateConflict: There is none, or nothing of it is under way.
        """
        return self._change(batch_id, caller, BatchState.CANCELLING)

    def delete(self, batch_id: str, caller: Caller) -> None:
        """Forget a batch and its rows. Its tasks stay, each to be deleted by itself.

        Raises:
            BatchNotFound: As `get`.
            BatchStateConflict: Tasks of it are under way.
        """
        self.get(batch_id, caller)  # ends it, if its last task is over

        def write(uow: UnitOfWork) -> None:
            held = _hold(uow, batch_id, caller)
            _refuse_state(held, frozenset(BatchState) - OPEN, "delete it")
            batches.remove(uow, held)

        self.db.write(write)

    def _new(self, rows: Sequence[NewRow], caller: Caller, sheet: Sheet, *, now: float) -> NewBatch:
        name = task_id(int(now * 1000), self.random_bits(RANDOM_BITS))
        return NewBatch(
            public_id=public_name(name, "bat"),
            tenant_id=caller.tenant_id,
            user_id=caller.user_id,
            name=sheet.name,
            source=sheet.source,
            webhook_url=sheet.webhook_url,
            expires_at=now + self.kept_s,
            rows=rows,
        )

    def _foresee(self, rows: Sequence[NewRow], caller: Caller) -> Interval | None:
        """Return when the last row would be done if the batch were confirmed now."""
        ready = [row.wanted for row in rows if row.wanted is not None]
        if not ready:
            return None
        try:
            last = self.submission.estimate(Order(**ready[-1]), caller)
        except (QueueFull, QuotaExceeded):
            return None
        return self.tasks.forecast.foresee_last(last, len(ready))

    def _finish(self, last: Job | None) -> Interval | None:
        if last is None or last.is_paused:
            return None
        return self.tasks.view(last).outlook.finish

    def _change(self, batch_id: str, caller: Caller, wanted: BatchState) -> BatchView:
        batch = self.get(batch_id, caller).batch
        if batch.state is not wanted:
            change = CHANGES[wanted]

            def write(uow: UnitOfWork) -> Batch:
                held = _hold(uow, batch_id, caller)
                _refuse_state(held, change.begins, change.becoming)
                return batches.set_state(uow, held, wanted, is_moving=True)

            self.keeper.move(self.db.write(write))
        return self.get(batch_id, caller)


_RUNS_AGAIN = frozenset({BatchState.PROCESSING, BatchState.COMPLETED, BatchState.CANCELLED})


def _last(conn: Connection, batch: Batch) -> Job | None:
    return batches.last_active(conn, batch.id) if batch.state in OPEN else None


def _hold(uow: UnitOfWork, batch_id: str, caller: Caller) -> Batch:
    held = batches.hold(uow, batch_id, caller.tenant_id)
    if held is None:
        raise _not_found(batch_id)
    return held


def _refuse_many(uow: UnitOfWork, caller: Caller) -> None:
    if batches.count_unconfirmed(uow.conn, caller.tenant_id) >= UNCONFIRMED_MAX:
        raise QuotaExceeded(
            f"{UNCONFIRMED_MAX} checked batches of yours wait to be confirmed; confirm some or"
            " delete them"
        )


def _refuse_state(batch: Batch, allowed: frozenset[BatchState], becoming: str) -> None:
    if batch.state not in allowed:
        states = " or ".join(sorted(allowed))
        raise BatchStateConflict(
            f"the batch is {batch.state}; only one that is {states} can be {becoming}"
        )


def _not_found(batch_id: str) -> BatchNotFound:
    return BatchNotFound(
        f"there is no batch {batch_id[:60]!r} of yours; one that is not confirmed is kept for a day"
    )
