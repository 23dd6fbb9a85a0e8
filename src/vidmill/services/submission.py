"""From a checked order to a durable job, and a ticket once it is durable."""

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass

from vidmill.domain.clip import SEED_MAX, ClipSpec
from vidmill.domain.errors import InvalidRequest, PermissionDenied
from vidmill.domain.ids import task_id
from vidmill.domain.job import MAX_ATTEMPTS, Job, Lane
from vidmill.domain.order import PRIORITIES, Limits, Order, problems, shape, to_spec
from vidmill.domain.ports import TicketSource
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompting import ShapedPrompt
from vidmill.services.access import Caller
from vidmill.services.forecast import Forecast
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork

ID_RANDOM_BITS = 74


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
        return self.db.write(self.accept(order, caller))

    def accept(self, order: Order, caller: Caller) -> Callable[[UnitOfWork], Job]:
        """Check *order* now and return the write that queues it, for whoever awaits writes.

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
        est_cost_s = self.forecast.cost_s(spec)
        request = _echo(order, spec, shaped)

        def write(uow: UnitOfWork) -> Job:
            new = jobs.NewJob(
                public_id=task_id(int(uow.now * 1000), self.random_bits(ID_RANDOM_BITS)),
                tenant_id=caller.tenant_id,
                pool=self.pool,
                lane=lane,
                spec=spec,
                request=request,
                est_cost_s=est_cost_s,
                max_attempts=self.max_attempts,
                client_reference=order.client_reference,
            )
            job = jobs.insert(uow, new)
            uow.after_commit(lambda: self.tickets.publish(self.pool))
            return job

        return write


def _lane(order: Order, caller: Caller) -> Lane:
    lane = PRIORITIES[order.priority]
    if lane is Lane.VIP and not caller.is_vip:
        raise PermissionDenied(
            "priority 'high' is for VIP tenants; ask for 'normal' or 'low', or ask the operator"
        )
    return lane


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
