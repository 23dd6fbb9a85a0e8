"""What is asked for, checked: from an order, or from a job to make again, to what is queued."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from vidmill.domain.clip import SEED_MAX, ClipSpec
from vidmill.domain.errors import FieldProblem, InvalidRequest, PermissionDenied, TaskStillLive
from vidmill.domain.job import Job, Lane
from vidmill.domain.lora import Lora
from vidmill.domain.order import PRIORITIES, Limits, Order, problems, shape, to_spec
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompting import ShapedPrompt
from vidmill.services.access import Caller
from vidmill.services.loras import Loras

ONE_AT_A_TIME = (
    "prompts are enhanced by `generate` and `regenerate` of the native API alone; leave it out"
)


@dataclass(frozen=True, kw_only=True)
class Draft:
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
class Drafts:
    """Makes drafts of what callers ask for.

    Attributes:
        loras: Says which LoRAs there are for whom.
        random_bits: Gives that many random bits; for seeds.
        enhance_refusal: Why `enhance` is refused; None = it is taken.
        check_url: Says what is wrong with a URL to call; quick, it asks nobody.
    """

    limits: Limits
    profile: ModelProfile
    loras: Loras
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

    def problems_for(self, caller: Caller) -> Callable[[Order], list[FieldProblem]]:
        """Return what tells `problems`, and a LoRA that *caller* lacks; it may ask the database."""
        return lambda order: self._judged(order, caller)[1]

    def check(self, order: Order, caller: Caller) -> None:
        """Raise what `of_order` would."""
        self._sound_lora(order, caller)
        _lane(order, caller)

    def of_order(self, order: Order, caller: Caller) -> Draft:
        """Return what *order* asks for.

        Raises:
            InvalidRequest: Every wrong field is named.
            PermissionDenied: The priority is not the caller's to ask for.
        """
        lora = self._sound_lora(order, caller)
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
        is_seeded, is_unwritten = order.seed is not None, order.enhance and order.enhanced is None
        is_cached = order.cache and not is_unwritten  # nobody knows yet what it would be equal to
        return Draft(
            spec=spec,
            request=_echo(order, spec, shaped),
            lane=lane,
            cache_key=spec.cache_key(is_seeded=is_seeded) if is_cached else None,
            is_unwritten=is_unwritten,
        )

    def of_job(self, job: Job, caller: Caller) -> Draft:
        """Return what makes a finished *job* once more, seed and all, whatever the cache holds.

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
        if lora := job.spec.lora:
            offered = self.loras.offered(caller.tenant_id).get(lora.name)
            if offered is None or offered.use(lora.strength) != lora:
                raise InvalidRequest([_other_lora(lora.name)])
        _refuse_lane(job.lane, caller)
        return Draft(
            spec=job.spec,
            request=job.request,
            lane=job.lane,
            cache_key=None,
            parent=job.public_id,
        )

    def _sound_lora(self, order: Order, caller: Caller) -> Lora | None:
        """Refuse an order with problems; return its LoRA."""
        lora, wrong = self._judged(order, caller)
        if wrong:
            raise InvalidRequest(wrong)
        return lora

    def _judged(self, order: Order, caller: Caller) -> tuple[Lora | None, list[FieldProblem]]:
        lora, wrong = self.loras.chosen(caller.tenant_id, order.lora)
        return lora, [*self.problems(order), *wrong]


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
