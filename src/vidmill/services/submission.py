"""From a checked order to a durable job, and a ticket once it is durable."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from vidmill.domain.clip import SEED_MAX, ClipSpec
from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    PermissionDenied,
    TaskStillLive,
)
from vidmill.domain.ids import task_id
from vidmill.domain.job import MAX_ATTEMPTS, Job, Lane
from vidmill.domain.order import PRIORITIES, Limits, Order, problems, shape, to_spec
from vidmill.domain.ports import TicketSource
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompting import ShapedPrompt
from vidmill.services.access import Caller
from vidmill.services.forecast import Forecast
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
    """A job in the queue. `is_replay`: it was there before, made by the same request."""

    job: Job
    is_replay: bool = False


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The desk that takes orders.

    Attributes:
        pool: Which GPUs the jobs go to.
        random_bits: Gives that many random bits; for seeds and ids.
    """

    db: Database
    tickets: TicketSource
    forecast: Forecast
    limits: Limits
    profile: ModelProfile
    pool: str
    max_attempts: int = MAX_ATTEMPTS
    random_bits: Callable[[int], int] = secrets.randbits

    def submit(self, order: Order, caller: Caller) -> Job:
        """Queue *order*; when this returns it survives any crash.

        Raises:
            InvalidRequest: Every wrong field is named; nothing was queued.
            PermissionDenied: The priority is not the caller's to ask for.
            QueueFull: The tenant has as many queued tasks as it may.
            ServiceUnavailable: The database takes no writes now.
        """
        return self.db.write(self.accept(order, caller)).job

    def accept(
        self, order: Order, caller: Caller, *, key: IdempotencyKey | None = None
    ) -> Callable[[UnitOfWork], Accepted]:
        """Check *order* now and return the write that queues it, for whoever awaits writes.

        The write raises `IdempotencyKeyReused` when *key* stands for another request.

        Raises:
            InvalidRequest, PermissionDenied: As `submit`.
        """
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
        return self._writing(
            caller, key=key, spec=spec, request=_echo(order, spec, shaped), lane=lane
        )

    def accept_again(
        self, job: Job, caller: Caller, *, key: IdempotencyKey | None = None
    ) -> Callable[[UnitOfWork], Accepted]:
        """Return the write that queues a finished *job* of the caller once more, seed and all.

        Raises:
            TaskStillLive: It is not finished.
            InvalidRequest: Another model made it than the one served now.
            PermissionDenied: Its priority is not the caller's to ask for any more.
        """
        if not job.is_terminal:
            raise TaskStillLive(
                f"task {job.public_id} is {job.status}; cancel it first, or wait until it is over"
            )
        if job.spec.profile != self.profile.name:
            raise InvalidRequest([_other_model(job, self.profile)])
        _refuse_lane(job.lane, caller)
        return self._writing(
            caller, key=key, spec=job.spec, request=job.request, lane=job.lane, parent=job
        )

    def _writing(
        self,
        caller: Caller,
        *,
        key: IdempotencyKey | None,
        spec: ClipSpec,
        request: Mapping[str, object],
        lane: Lane,
        parent: Job | None = None,
    ) -> Callable[[UnitOfWork], Accepted]:
        est_cost_s = self.forecast.cost_s(spec)

        def write(uow: UnitOfWork) -> Accepted:
            public_id = task_id(int(uow.now * 1000), self.random_bits(ID_RANDOM_BITS))
            if key is not None and (earlier := _earlier(uow, caller, key, public_id)):
                return Accepted(job=earlier, is_replay=True)
            reference = request.get("client_reference")
            new = jobs.NewJob(
                public_id=public_id,
                tenant_id=caller.tenant_id,
                pool=self.pool,
                lane=lane,
                spec=spec,
                request=request,
                est_cost_s=est_cost_s,
                max_attempts=self.max_attempts,
                client_reference=None if reference is None else str(reference),
                parent=parent.public_id if parent else None,
            )
            job = jobs.insert(uow, new)
            uow.after_commit(lambda: self.tickets.publish(self.pool))
            return Accepted(job=job)

        return write


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
    lane = PRIORITIES[order.priority]
    _refuse_lane(lane, caller)
    return lane


def _refuse_lane(lane: Lane, caller: Caller) -> None:
    if lane is Lane.VIP and not caller.is_vip:
        raise PermissionDenied(
            "priority 'high' is for VIP tenants; ask for 'normal' or 'low', or ask the operator"
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
        "client_reference": order.client_reference,
        "metadata": dict(order.metadata),
        "shaping": {
            "rules_version": shaped.rules_version,
            "language": shaped.language,
            "additions": [asdict(addition) for addition in shaped.additions],
        },
    }
