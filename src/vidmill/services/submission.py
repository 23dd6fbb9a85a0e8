"""From a checked order to a durable job, and a ticket once it is durable."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from vidmill.domain.clip import Resolution
from vidmill.domain.errors import EnhancerUnavailable, InvalidRequest, PermissionDenied, QueueFull
from vidmill.domain.ids import RANDOM_BITS, task_id
from vidmill.domain.job import MAX_ATTEMPTS, Job, JobState
from vidmill.domain.order import Order
from vidmill.domain.ports import TicketSource
from vidmill.domain.pricing import Tariff, cached_price
from vidmill.services.access import Caller
from vidmill.services.drafts import Draft, Drafts
from vidmill.services.forecast import Forecast
from vidmill.services.fullness import Fullness
from vidmill.services.idempotency import IdempotencyKey, is_repeat, owner_of
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job in the queue, or answered. `is_replay`: the same request made it before."""

    job: Job
    is_replay: bool = False


Refusal = InvalidRequest | PermissionDenied
Verdict = Job | Refusal
"""What became of one order among many."""

T = TypeVar("T")


class _Undone(Exception):
    """Unwinds the transaction of an estimate."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The desk that takes orders.

    Attributes:
        pool: Which GPUs the jobs of plans without pools go to.
        cache_ttl_s: How long a clip answers identical orders.
        random_bits: Gives that many random bits; for ids.
    """

    db: Database
    tickets: TicketSource
    forecast: Forecast
    fullness: Fullness
    drafts: Drafts
    pool: str
    tariff: Tariff
    cache_ttl_s: float
    max_attempts: int = MAX_ATTEMPTS
    random_bits: Callable[[int], int] = secrets.randbits

    def submit(self, order: Order, caller: Caller) -> Job:
        """Queue *order*, or answer it from the cache; then it survives any crash.

        Raises:
            InvalidRequest: Every wrong field is named; nothing was queued.
            PermissionDenied: The priority is not the caller's to ask for.
            QueueFull: The tenant, or all tenants, have as many queued tasks as they may.
            ServiceUnavailable: The database takes no writes now.
        """
        return self.db.write(self.accept(order, caller)).job

    def accept_many(
        self, orders: Sequence[Order], caller: Caller, *, key: IdempotencyKey | None = None
    ) -> Callable[[UnitOfWork], list[Verdict]]:
        """Check *orders* now and return the write that queues those that may be, all at once.

        It returns what became of each. *key* is that of the request; whoever writes takes it.

        Raises:
            QueueFull, QuotaExceeded: There is no room for all that are right, or never will be;
                none was queued. The write raises them too.
            ServiceUnavailable: As `submit`; raised by the write.
        """
        drafts = [_or_refusal(self.drafts.of_order, order, caller) for order in orders]
        return self._writing_many(drafts, caller, key=key)

    def accept_many_again(
        self, finished: Sequence[Job], caller: Caller, *, key: IdempotencyKey | None = None
    ) -> Callable[[UnitOfWork], list[Verdict]]:
        """Return the write that queues *finished* jobs once more, as `accept_again` does one.

        *key* as in `accept_many`.

        Raises:
            TaskStillLive, QueueFull: As `accept_again`.
        """
        drafts = [_or_refusal(self.drafts.of_job, job, caller) for job in finished]
        return self._writing_many(drafts, caller, key=key)

    def quote(self, order: Order, caller: Caller) -> int:
        """Return what *order* costs in credits if it is rendered; nothing is stored.

        Raises:
            InvalidRequest, PermissionDenied: As `submit`.
        """
        self.drafts.check(order, caller)
        return self.tariff.price_credits(Resolution(order.resolution), round(order.duration_s, 1))

    def estimate(self, order: Order, caller: Caller) -> Job:
        """Return the job that `submit` would make now; nothing is stored, held or charged.

        It is really made, and undone in the same transaction: so it says what submitting would. A
        prompt that is to be written out counts as it is, for nobody is asked.

        Raises:
            InvalidRequest, PermissionDenied, QueueFull, ServiceUnavailable: As `submit`.
        """
        draft = replace(self.drafts.of_order(order, caller), is_unwritten=False)
        write = self._writing(draft, caller, key=None)

        def make_and_undo(uow: UnitOfWork) -> Job:
            raise _Undone(write(uow).job)

        try:
            return self.db.write(make_and_undo)
        except _Undone as undone:
            return replace(undone.job, id=self.random_bits(RANDOM_BITS))

    def accept(
        self,
        order: Order,
        caller: Caller,
        *,
        key: IdempotencyKey | None = None,
        parent: str | None = None,
    ) -> Callable[[UnitOfWork], Accepted]:
        """Check *order* now and return the write that queues it, for whoever awaits writes.

        *parent* is the public id of the task it varies. The write raises `IdempotencyKeyReused`
        when *key* stands for another request.

        Raises:
            InvalidRequest, PermissionDenied, QueueFull: As `submit`.
        """
        draft = replace(self.drafts.of_order(order, caller), parent=parent)
        return self._writing(draft, caller, key=key)

    def accept_again(
        self, job: Job, caller: Caller, *, key: IdempotencyKey | None = None
    ) -> Callable[[UnitOfWork], Accepted]:
        """Return the write that queues a finished *job* of the caller once more, seed and all.

        It is made anew, whatever the cache holds.

        Raises:
            TaskStillLive: It is not finished.
            InvalidRequest: Another model made it than the one served now.
            PermissionDenied: Its priority is not the caller's to ask for any more.
            QueueFull: As `submit`.
        """
        return self._writing(self.drafts.of_job(job, caller), caller, key=key)

    def _writing_many(
        self, drafts: Sequence[Draft | Refusal], caller: Caller, *, key: IdempotencyKey | None
    ) -> Callable[[UnitOfWork], list[Verdict]]:
        self._refuse_if_full(caller, key)
        found = [draft for draft in drafts if isinstance(draft, Draft)]
        costs = [self._cost_s(draft, caller) for draft in found]

        def write(uow: UnitOfWork) -> list[Verdict]:
            news = [
                self._new_job(draft, caller, cost_s, now=uow.now)
                for draft, cost_s in zip(found, costs, strict=True)
            ]
            stored = jobs.insert_many(uow, news, cache_ttl_s=self.cache_ttl_s)
            self._wake(uow, stored)
            made = iter(stored)
            return [next(made) if isinstance(draft, Draft) else draft for draft in drafts]

        return write

    def _writing(
        self, draft: Draft, caller: Caller, *, key: IdempotencyKey | None
    ) -> Callable[[UnitOfWork], Accepted]:
        self._refuse_if_full(caller, key)
        cost_s = self._cost_s(draft, caller)

        def write(uow: UnitOfWork) -> Accepted:
            new = self._new_job(draft, caller, cost_s, now=uow.now)
            if key is not None and (earlier := _earlier(uow, caller, key, new.public_id)):
                return Accepted(job=earlier, is_replay=True)
            if draft.is_unwritten:
                raise EnhancerUnavailable(
                    "the task of this Idempotency-Key was deleted meanwhile; send it once more"
                )
            job = jobs.insert(uow, new, cache_ttl_s=self.cache_ttl_s)
            self._wake(uow, [job])
            return Accepted(job=job)

        return write

    def _refuse_if_full(self, caller: Caller, key: IdempotencyKey | None) -> None:
        """Raise `QueueFull` if it is, unless what *key* stands for is in the queue already."""
        try:
            self.fullness.refuse_if_full()
        except QueueFull:
            if not is_repeat(self.db, caller, key):
                raise

    def _new_job(self, draft: Draft, caller: Caller, cost_s: float, *, now: float) -> jobs.NewJob:
        reference = draft.request.get("client_reference")
        price = self.tariff.price_credits(draft.spec.resolution, draft.spec.duration_s)
        return jobs.NewJob(
            public_id=task_id(int(now * 1000), self.random_bits(RANDOM_BITS)),
            tenant_id=caller.tenant_id,
            user_id=caller.user_id,
            pool=self._pool(caller),
            lane=draft.lane,
            spec=draft.spec,
            request=draft.request,
            est_cost_s=cost_s,
            max_attempts=self.max_attempts,
            client_reference=None if reference is None else str(reference),
            parent=draft.parent,
            cache_key=draft.cache_key,
            price_credits=price,
            cached_price_credits=cached_price(price, caller.plan.cached_price_percent),
        )

    def _cost_s(self, draft: Draft, caller: Caller) -> float:
        return self.forecast.cost_s(draft.spec, self._pool(caller))

    def _pool(self, caller: Caller) -> str:
        return caller.plan.pools[0] if caller.plan.pools else self.pool

    def _wake(self, uow: UnitOfWork, made: Sequence[Job]) -> None:
        pools = {job.pool for job in made if job.state is JobState.QUEUED}
        for pool in pools:
            uow.after_commit(partial(self.tickets.publish, pool))


def _or_refusal(draft: Callable[[T, Caller], Draft], wanted: T, caller: Caller) -> Draft | Refusal:
    try:
        return draft(wanted, caller)
    except (InvalidRequest, PermissionDenied) as error:
        return error


def _earlier(uow: UnitOfWork, caller: Caller, key: IdempotencyKey, public_id: str) -> Job | None:
    """Take *key* for the task *public_id*; return the job that has it already, if any."""
    owner = owner_of(uow, caller, key, public_id)
    return None if owner == public_id else jobs.get(uow.conn, owner, caller.tenant_id)
