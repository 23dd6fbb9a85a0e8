"""From a checked order to a durable job, and a ticket once it is durable."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar

from vidmill.domain.clip import SEED_MAX, ClipSpec, Resolution
from vidmill.domain.errors import (
    EnhancerUnavailable,
    FieldProblem,
    InvalidRequest,
    PermissionDenied,
    TaskStillLive,
)
from vidmill.domain.ids import task_id
from vidmill.domain.job import MAX_ATTEMPTS, Job, JobState, Lane
from vidmill.domain.lora import Lora
from vidmill.domain.order import PRIORITIES, Limits, Order, problems, shape, to_spec
from vidmill.domain.ports import TicketSource
from vidmill.domain.pricing import Tariff, cached_price
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompting import ShapedPrompt
from vidmill.services.access import Caller
from vidmill.services.forecast import Forecast
from vidmill.services.fullness import Fullness
from vidmill.services.loras import Loras
from vidmill.store import idempotency, jobs
from vidmill.store.session import Database, UnitOfWork

ID_RANDOM_BITS = 74


@dataclass(frozen=True, kw_only=True)
class IdempotencyKey:
    """A caller's name for one request. `fingerprint` tells requests under one key apart.

    Attributes:
        kept_s: How long it stands for what it made.
        is_taken_over: From now on it stands for this request, whatever it made before.
    """

    key: str
    fingerprint: str
    kept_s: float = idempotency.KEPT_S
    is_taken_over: bool = False


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A job in the queue, or answered. `is_replay`: the same request made it before."""

    job: Job
    is_replay: bool = False


Refusal = InvalidRequest | PermissionDenied
Verdict = Job | Refusal
"""What became of one order among many."""

ONE_AT_A_TIME = (
    "prompts are enhanced by `generate` and `regenerate` of the native API alone; leave it out"
)

T = TypeVar("T")


class _Undone(Exception):
    """Unwinds the transaction of an estimate."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A checked order, ready to be written but for its id.

    Attributes:
        is_unwritten: The enhancer was not asked: it may be answered, and never queued.
    """

    spec: ClipSpec
    request: Mapping[str, object]
    lane: Lane
    cache_key: str | None
    parent: str | None = None
    is_unwritten: bool = False


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The desk that takes orders.

    Attributes:
        pool: Which GPUs the jobs of plans without pools go to.
        cache_ttl_s: How long a clip answers identical orders.
        random_bits: Gives that many random bits; for seeds and ids.
        loras: Says which LoRAs there are for whom.
        enhance_refusal: Why `enhance` is refused; None = it is taken.
        check_url: Says what is wrong with a URL to call; quick, it asks nobody.
    """

    db: Database
    tickets: TicketSource
    forecast: Forecast
    fullness: Fullness
    limits: Limits
    profile: ModelProfile
    pool: str
    tariff: Tariff
    loras: Loras
    cache_ttl_s: float
    max_attempts: int = MAX_ATTEMPTS
    random_bits: Callable[[int], int] = secrets.randbits
    enhance_refusal: str | None = ONE_AT_A_TIME
    check_url: Callable[[str], FieldProblem | None] = lambda _url: None

    def problems(self, order: Order) -> list[FieldProblem]:
        """Return everything that is wrong with *order*, all fields at once, whoever asks."""
        found = problems(order, self.limits, self.profile)
        wrong = self.check_url(order.webhook_url) if order.webhook_url is not None else None
        if order.enhance and self.enhance_refusal is not None:
            why = self.enhance_refusal
            found.append(FieldProblem(pointer="#/enhance", code="unsupported", message=why))
        return [*found, wrong] if wrong else found

    def is_repeat(self, caller: Caller, key: IdempotencyKey | None) -> bool:
        """Return whether *key* stands for something already, as far as one can see now."""
        if key is None:
            return False
        oldest = self.db.now() - key.kept_s
        return self.db.read(
            lambda conn: idempotency.is_taken(
                conn, tenant_id=caller.tenant_id, key=key.key, oldest=oldest
            )
        )

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
        return self.db.write(self.accept_many(orders, caller))

    def accept_many(
        self, orders: Sequence[Order], caller: Caller
    ) -> Callable[[UnitOfWork], list[Verdict]]:
        """Check *orders* now and return the write that queues those that may be.

        Raises:
            QueueFull: As `submit_many`; the write raises it too.
        """
        drafts = [_or_refusal(self._draft, order, caller) for order in orders]
        return self._writing_many(drafts, caller)

    def accept_many_again(
        self, finished: Sequence[Job], caller: Caller
    ) -> Callable[[UnitOfWork], list[Verdict]]:
        """Return the write that queues *finished* jobs once more, as `accept_again` does one.

        Raises:
            TaskStillLive, QueueFull: As `accept_again`.
        """
        drafts = [_or_refusal(self._draft_again, job, caller) for job in finished]
        return self._writing_many(drafts, caller)

    def quote(self, order: Order, caller: Caller) -> int:
        """Return what *order* costs in credits if it is rendered; nothing is stored.

        Raises:
            InvalidRequest, PermissionDenied: As `submit`.
        """
        self._checked_lora(order, caller)
        _lane(order, caller)
        return self.tariff.price_credits(Resolution(order.resolution), round(order.duration_s, 1))

    def estimate(self, order: Order, caller: Caller) -> Job:
        """Return the job that `submit` would make now; nothing is stored, held or charged.

        It is really made, and undone in the same transaction: so it says what submitting would.

        Raises:
            InvalidRequest, PermissionDenied, QueueFull, ServiceUnavailable: As `submit`.
        """
        write = self.accept(order, caller)

        def make_and_undo(uow: UnitOfWork) -> Job:
            raise _Undone(write(uow).job)

        try:
            return self.db.write(make_and_undo)
        except _Undone as undone:
            return replace(undone.job, id=self.random_bits(ID_RANDOM_BITS))

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
        draft = replace(self._draft(order, caller), parent=parent)
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
        return self._writing(self._draft_again(job, caller), caller, key=key)

    def _draft(self, order: Order, caller: Caller) -> _Draft:
        lora = self._checked_lora(order, caller)
        lane = _lane(order, caller)
        shaped = shape(order, self.profile, lora)
        spec = to_spec(
            order,
            shaped,
            limits=self.limits,
            profile=self.profile,
            seed=self.random_bits(SEED_MAX.bit_length()),
            lora=lora,
        )
        is_seeded = order.seed is not None
        return _Draft(
            spec=spec,
            request=_echo(order, spec, shaped),
            lane=lane,
            cache_key=spec.cache_key(is_seeded=is_seeded) if order.cache else None,
            is_unwritten=order.enhance and order.enhanced is None,
        )

    def _checked_lora(self, order: Order, caller: Caller) -> Lora | None:
        """Refuse an order with problems; return its LoRA."""
        lora, problems = self.loras.chosen(caller.tenant_id, order.lora)
        if wrong := [*self.problems(order), *problems]:
            raise InvalidRequest(wrong)
        return lora

    def _draft_again(self, job: Job, caller: Caller) -> _Draft:
        if not job.is_terminal:
            raise TaskStillLive(
                f"task {job.public_id} is {job.status}; cancel it first, or wait until it is over"
            )
        if job.spec.profile != self.profile.name:
            raise InvalidRequest([_other_model(job, self.profile)])
        if lora := job.spec.lora:
            offered = self.loras.offered(caller.tenant_id).get(lora.name)
            if offered is None or offered.use(lora.strength) != lora:
                raise InvalidRequest([_other_lora(lora.name)])
        _refuse_lane(job.lane, caller)
        return _Draft(
            spec=job.spec,
            request=job.request,
            lane=job.lane,
            cache_key=None,
            parent=job.public_id,
        )

    def _writing_many(
        self, drafts: Sequence[_Draft | Refusal], caller: Caller
    ) -> Callable[[UnitOfWork], list[Verdict]]:
        self.fullness.refuse_if_full()
        found = [draft for draft in drafts if isinstance(draft, _Draft)]
        costs = [self._cost_s(draft, caller) for draft in found]

        def write(uow: UnitOfWork) -> list[Verdict]:
            news = [
                self._new_job(draft, caller, cost_s, now=uow.now)
                for draft, cost_s in zip(found, costs, strict=True)
            ]
            stored = jobs.insert_many(uow, news, cache_ttl_s=self.cache_ttl_s)
            self._wake(uow, stored)
            made = iter(stored)
            return [next(made) if isinstance(draft, _Draft) else draft for draft in drafts]

        return write

    def _writing(
        self, draft: _Draft, caller: Caller, *, key: IdempotencyKey | None
    ) -> Callable[[UnitOfWork], Accepted]:
        self.fullness.refuse_if_full()
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


def _or_refusal(
    draft: Callable[[T, Caller], _Draft], wanted: T, caller: Caller
) -> _Draft | Refusal:
    try:
        return draft(wanted, caller)
    except (InvalidRequest, PermissionDenied) as error:
        return error


def owner_of(uow: UnitOfWork, caller: Caller, key: IdempotencyKey | None, public_id: str) -> str:
    """Take *key* for *public_id*; return whose it is, an earlier request's perhaps."""
    if key is None:
        return public_id
    return idempotency.take_key(
        uow,
        tenant_id=caller.tenant_id,
        key=key.key,
        fingerprint=key.fingerprint,
        public_id=public_id,
        kept_s=key.kept_s,
        is_taken_over=key.is_taken_over,
    )


def _earlier(uow: UnitOfWork, caller: Caller, key: IdempotencyKey, public_id: str) -> Job | None:
    """Take *key* for the task *public_id*; return the job that has it already, if any."""
    owner = owner_of(uow, caller, key, public_id)
    return None if owner == public_id else jobs.get(uow.conn, owner, caller.tenant_id)


def _other_model(job: Job, profile: ModelProfile) -> FieldProblem:
    return FieldProblem(
        pointer="#/task_id",
        code="unsupported",
        message=f"{job.spec.profile} made it, and {profile.name} is served now; submit it anew",
    )


def _other_lora(name: str) -> FieldProblem:
    return FieldProblem(
        pointer="#/task_id",
        code="unsupported",
        message=f"it was drawn with the LoRA {name!r}, whose files are not on offer any more;"
        " submit it anew",
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
        "aspect_ratio": order.aspect_ratio,
        "duration": spec.duration_s,
        "frame_rate": spec.fps,
        "style": order.style,
        "camera": order.camera,
        "language": order.language,
        "enable_physics": order.enable_physics,
        "lora": spec.lora and {"name": spec.lora.name, "strength": spec.lora.strength},
        "enhance": order.enhance,
        "seed": order.seed,
        "priority": order.priority,
        "cache": order.cache,
        "client_reference": order.client_reference,
        "metadata": dict(order.metadata),
        "webhook_url": order.webhook_url,
        "model": order.model,
        "shaping": {
            "rules_version": shaped.rules_version,
            "language": shaped.language,
            "enhancement": asdict(order.enhanced) if order.enhanced else None,
            "additions": [asdict(addition) for addition in shaped.additions],
        },
    }
