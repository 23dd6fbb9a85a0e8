"""From a checked order to a durable job, and a ticket once it is durable."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from vidmill.domain.clip import SEED_MAX, ClipSpec
from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    PermissionDenied,
    TaskStillLive,
)
from vidmill.domain.ids import task_id
from vidmill.domain.job import MAX_ATTEMPTS, Job, JobState, Lane
from vidmill.domain.order import PRIORITIES, Limits, Order, problems, shape, to_spec
from vidmill.domain.ports import TicketSource
from vidmill.domain.pricing import Tariff, cached_price
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompting import ShapedPrompt
from vidmill.services.access import Caller
from vidmill.services.forecast import Forecast
from vidmill.services.fullness import Fullness
from vidmill.store import idempotency, jobs
from vidmill.store.session import Database, UnitOfWork

ID_RANDOM_BITS = 74


@dataclass(frozen=True, kw_only=True)
class IdempotencyKey:
    """A caller's name for one request. `fingerprint` tells requests under one key apart."""

    key: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job in the queue, or answered. `is_replay`: the same request made it before."""

    job: Job
    is_replay: bool = False


Verdict = Job | InvalidRequest | PermissionDenied
"""What became of one order among many."""


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A checked order, ready to be written but for its id."""

    spec: ClipSpec
    request: Mapping[str, object]
    lane: Lane
    cache_key: str | None
    parent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The desk that takes orders.

    Attributes:
        pool: Which GPUs the jobs of plans without pools go to.
        cache_ttl_s: How long a clip answers identical orders.
        random_bits: Gives that many random bits; for seeds and ids.
    """

    db: Database
    tickets: TicketSource
    forecast: Forecast
    fullness: Fullness
    limits: Limits
    profile: ModelProfile
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

    def submit_many(self, orders: Sequence[Order], caller: Caller) -> list[Verdict]:
        """Queue those of *orders* that may be, all at once; return what became of each.

        Raises:
            QueueFull: There is no room for all that are right; none was queued.
            ServiceUnavailable: As `submit`.
        """
        self.fullness.refuse_if_full()
        drafts = [self._try_draft(order, caller) for order in orders]
        found = [draft for draft in drafts if isinstance(draft, _Draft)]
        costs = [self._cost_s(draft, caller) for draft in found]

        def write(uow: UnitOfWork) -> list[Job]:
            news = [
                self._new_job(draft, caller, cost_s, now=uow.now)
                for draft, cost_s in zip(found, costs, strict=True)
            ]
            made = jobs.insert_many(uow, news, cache_ttl_s=self.cache_ttl_s)
            self._wake(uow, made)
            return made

        made = iter(self.db.write(write) if found else [])
        return [next(made) if isinstance(draft, _Draft) else draft for draft in drafts]

    def accept(
        self, order: Order, caller: Caller, *, key: IdempotencyKey | None = None
    ) -> Callable[[UnitOfWork], Accepted]:
        """Check *order* now and return the write that queues it, for whoever awaits writes.

        The write raises `IdempotencyKeyReused` when *key* stands for another request.

        Raises:
            InvalidRequest, PermissionDenied, QueueFull: As `submit`.
        """
        return self._writing(self._draft(order, caller), caller, key=key)

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
        if not job.is_terminal:
            raise TaskStillLive(
                f"task {job.public_id} is {job.status}; cancel it first, or wait until it is over"
            )
        if job.spec.profile != self.profile.name:
            raise InvalidRequest([_other_model(job, self.profile)])
        _refuse_lane(job.lane, caller)
        draft = _Draft(
            spec=job.spec,
            request=job.request,
            lane=job.lane,
            cache_key=None,
            parent=job.public_id,
        )
        return self._writing(draft, caller, key=key)

    def _try_draft(
        self, order: Order, caller: Caller
    ) -> _Draft | InvalidRequest | PermissionDenied:
        try:
            return self._draft(order, caller)
        except (InvalidRequest, PermissionDenied) as error:
            return error

    def _draft(self, order: Order, caller: Caller) -> _Draft:
        if wrong := problems(order, self.limits, self.profile):
            raise InvalidRequest(wrong)
        lane = _lane(order, caller)
        shaped = shape(order, self.profile)
        spec = to_spec(
            order,
            shaped,
            limits=self.limits,
            profile=self.profile,
            seed=self.random_bits(SEED_MAX.bit_length()),
        )
        is_seeded = order.seed is not None
        return _Draft(
            spec=spec,
            request=_echo(order, spec, shaped),
            lane=lane,
            cache_key=spec.cache_key(is_seeded=is_seeded) if order.cache else None,
        )

    def _writing(
        self, draft: _Draft, caller: Caller, *, key: IdempotencyKey | None
    ) -> Callable[[UnitOfWork], Accepted]:
        self.fullness.refuse_if_full()
        cost_s = self._cost_s(draft, caller)

        def write(uow: UnitOfWork) -> Accepted:
            new = self._new_job(draft, caller, cost_s, now=uow.now)
            if key is not None and (earlier := _earlier(uow, caller, key, new.public_id)):
                return Accepted(job=earlier, is_replay=True)
            job = jobs.insert(uow, new, cache_ttl_s=self.cache_ttl_s)
            self._wake(uow, [job])
            return Accepted(job=job)

        return write

    def _new_job(self, draft: _Draft, caller: Caller, cost_s: float, *, now: float) -> jobs.NewJob:
        reference = draft.request.get("client_reference")
        price = self.tariff.price_credits(draft.spec.resolution, draft.spec.duration_s)
        return jobs.NewJob(
            public_id=task_id(int(now * 1000), self.random_bits(ID_RANDOM_BITS)),
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

    def _cost_s(self, draft: _Draft, caller: Caller) -> float:
        return self.forecast.cost_s(draft.spec, self._pool(caller))

    def _pool(self, caller: Caller) -> str:
        return caller.plan.pools[0] if caller.plan.pools else self.pool

    def _wake(self, uow: UnitOfWork, made: Sequence[Job]) -> None:
        pools = {job.pool for job in made if job.state is JobState.QUEUED}
        for pool in pools:
            uow.after_commit(partial(self.tickets.publish, pool))


def _earlier(uow: UnitOfWork, caller: Caller, key: IdempotencyKey, public_id: str) -> Job | None:
    """Take *key* for the task *public_id*; return the job that has it already, if any."""
    owner = idempotency.take_key(
        uow,
        tenant_id=caller.tenant_id,
        key=key.key,
        fingerprint=key.fingerprint,
        public_id=public_id,
    )
    return None if owner == public_id else jobs.get(uow.conn, owner, caller.tenant_id)


def _other_model(job: Job, profile: ModelProfile) -> FieldProblem:
    return FieldProblem(
        pointer="#/task_id",
        code="unsupported",
        message=f"{job.spec.profile} made it, and {profile.name} is served now; submit it anew",
    )


def _lane(order: Order, caller: Caller) -> Lane:
    """Return the lower of what was asked for and what the plan allows."""
    asked = PRIORITIES[order.priority]
    _refuse_lane(asked, caller)
    return max(asked, caller.plan.lane)


def _refuse_lane(lane: Lane, caller: Caller) -> None:
    if lane is Lane.VIP and not caller.is_vip:
        raise PermissionDenied(
            f"priority 'high' is not in the plan {caller.plan.name!r}; ask for 'normal' or 'low',"
            " or ask the operator"
        )


def _echo(order: Order, spec: ClipSpec, shaped: ShapedPrompt) -> dict[str, object]:
    """Return what the task shows: the request with its defaults, and what rules added."""
    return {
        "prompt": order.prompt,
        "negative_prompt": order.negative_prompt,
        "use_default_negative_prompt": order.use_default_negative_prompt,
        "resolution": spec.resolution,
        "duration": spec.duration_s,
        "frame_rate": spec.fps,
        "style": order.style,
        "language": order.language,
        "enable_physics": order.enable_physics,
        "seed": order.seed,
        "priority": order.priority,
        "cache": order.cache,
        "client_reference": order.client_reference,
        "metadata": dict(order.metadata),
        "shaping": {
            "rules_version": shaped.rules_version,
            "language": shaped.language,
            "additions": [asdict(addition) for addition in shaped.additions],
        },
    }
