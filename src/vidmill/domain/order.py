"""What a caller orders, and every limit it must keep before anything is queued."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vidmill.domain.clip import (
    DELIVERED_SIZES,
    SEED_MAX,
    Aspect,
    ClipSpec,
    Resolution,
    forbidden_characters,
)
from vidmill.domain.enhancing import Enhancement
from vidmill.domain.errors import FieldProblem
from vidmill.domain.job import Lane
from vidmill.domain.lora import Lora, judge_strength
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompt_rules import CAMERAS, STYLES
from vidmill.domain.prompting import LANGUAGES, ShapedPrompt, shape_prompt

CLIENT_REFERENCE_MAX_CHARS = 200
METADATA_MAX_PAIRS = 16
METADATA_KEY_MAX_CHARS = 64
METADATA_VALUE_MAX_CHARS = 512
DURATION_STEP_S = 0.1

PRIORITIES: Mapping[str, Lane] = {"high": Lane.VIP, "normal": Lane.STANDARD, "low": Lane.BATCH}


@dataclass(frozen=True, kw_only=True)
class Order:
    """A well-typed request whose values nobody has checked yet. Texts are NFC and trimmed.

    Attributes:
        fps: None = the default of `Limits`.
        language: Of the words that rules add; None = the prompt's own.
        enhance: A language model shall write the prompt out; `enhanced` is what it wrote.
        seed: None = a random one.
        cache: An identical clip that is there, or on its way, will do.
        lora: Name of the LoRA to draw with; `lora_strength` None = that LoRA's own.
        model: What the caller calls the model; echoed, and nothing else.
        webhook_url: Told when it is over, beside the tenant's endpoints.
    """

    prompt: str
    negative_prompt: str = ""
    use_default_negative_prompt: bool = True
    resolution: str = Resolution.P720
    aspect_ratio: str = Aspect.WIDE
    duration_s: float = 5.0
    fps: int | None = None
    style: str | None = None
    camera: str | None = None
    language: str | None = None
    enable_physics: bool = False
    lora: str | None = None
    lora_strength: float | None = None
    enhance: bool = False
    enhanced: Enhancement | None = None
    seed: int | None = None
    priority: str = "normal"
    client_reference: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache: bool = True
    webhook_url: str | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The operator's limits; the meaning of each is in docs/settings.md."""

    prompt_max_chars: int
    negative_prompt_max_chars: int
    duration_min_s: float
    duration_max_s: float
    resolutions: tuple[Resolution, ...]
    frame_rates: tuple[int, ...]
    default_frame_rate: int


Check = Callable[[Order, Limits, ModelProfile], Iterator[FieldProblem]]


def problems(order: Order, limits: Limits, profile: ModelProfile) -> list[FieldProblem]:
    """Return everything that is wrong with *order*, all fields at once."""
    return [problem for check in _CHECKS for problem in check(order, limits, profile)]


def to_spec(
    order: Order,
    shaped: ShapedPrompt,
    *,
    limits: Limits,
    profile: ModelProfile,
    seed: int,
    lora: Lora | None = None,
) -> ClipSpec:
    """Return the clip spec of an order without problems. *seed* counts where it names none.

    *lora* is the one that the order names.
    """
    resolution, aspect = Resolution(order.resolution), Aspect(order.aspect_ratio)
    duration_s = round(order.duration_s, 1)
    return ClipSpec(
        prompt=shaped.prompt,
        negative_prompt=shaped.negative_prompt,
        profile=profile.name,
        resolution=resolution,
        size=DELIVERED_SIZES[resolution, aspect],
        native=profile.native_size(resolution, aspect),
        duration_s=duration_s,
        fps=order.fps or limits.default_frame_rate,
        native_fps=profile.native_fps,
        num_frames=profile.num_frames(duration_s),
        steps=profile.steps,
        guidance_scale=profile.guidance_scale,
        guidance_scale_2=profile.guidance_scale_2,
        flow_shift=profile.flow_shift,
        seed=seed if order.seed is None else order.seed,
        lora=None if lora is None else lora.use(order.lora_strength),
    )


def shape(order: Order, profile: ModelProfile, lora: Lora | None = None) -> ShapedPrompt:
    """Apply the prompt rules to an order without problems, which names *lora*."""
    default = profile.default_negative_prompt if order.use_default_negative_prompt else ""
    return shape_prompt(
        order.enhanced.text if order.enhanced else order.prompt,
        order.negative_prompt,
        default_negative_prompt=default,
        language=order.language,
        style=order.style,
        camera=order.camera,
        enable_physics=order.enable_physics,
        triggers={f"lora.{lora.name}": lora.trigger_words} if lora else {},
    )


def offered_resolutions(limits: Limits, profile: ModelProfile) -> tuple[Resolution, ...]:
    return tuple(name for name in limits.resolutions if name in profile.sizes)


def _prompt(order: Order, limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    if not any(unicodedata.category(c)[0] not in "CZ" for c in order.prompt):
        yield FieldProblem(
            pointer="#/prompt", code="blank", message="it is blank; say what the clip shows"
        )
    yield from _text_problems("prompt", order.prompt, limits.prompt_max_chars)


def _negative(order: Order, limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.negative_prompt.strip() and profile.guidance_scale <= 1:
        yield FieldProblem(
            pointer="#/negative_prompt",
            code="unsupported",
            message=f"the model {profile.name} draws without guidance, which is what reads it;"
            " leave it out",
        )
    yield from _text_problems(
        "negative_prompt", order.negative_prompt, limits.negative_prompt_max_chars
    )


def _text_problems(name: str, text: str, max_chars: int) -> Iterator[FieldProblem]:
    if len(text) > max_chars:
        yield FieldProblem(
            pointer=f"#/{name}",
            code="max_length",
            message=f"it has {len(text)} characters, the limit is {max_chars}; shorten it",
            limit=max_chars,
        )
    if bad := forbidden_characters(text):
        yield FieldProblem(
            pointer=f"#/{name}",
            code="forbidden_character",
            message=f"it holds {', '.join(bad[:5])}; remove control and surrogate characters",
        )


def _resolution(order: Order, limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    offered = offered_resolutions(limits, profile)
    if order.resolution not in offered:
        yield _not_offered("resolution", order.resolution, offered)


def _aspect(order: Order, _limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.aspect_ratio not in profile.aspects:
        yield _not_offered("aspect_ratio", order.aspect_ratio, profile.aspects)


def _duration(order: Order, limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    duration_s, least, most = order.duration_s, limits.duration_min_s, limits.duration_max_s
    if not duration_s >= least:
        message = f"{duration_s:g} s is too short; ask for {least:g} to {most:g} s"
        yield FieldProblem(pointer="#/duration", code="min", message=message, limit=least)
    elif not duration_s <= most:
        message = f"{duration_s:g} s is too long; ask for {least:g} to {most:g} s"
        yield FieldProblem(pointer="#/duration", code="max", message=message, limit=most)
    elif abs(duration_s - round(duration_s, 1)) > 1e-6:  # noqa: PLR2004 - far below a frame
        message = f"{duration_s:g} s is between two steps; round it to {DURATION_STEP_S} s"
        yield FieldProblem(
            pointer="#/duration", code="step", message=message, limit=DURATION_STEP_S
        )


def _frame_rate(order: Order, limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.fps is not None and order.fps not in limits.frame_rates:
        yield _not_offered("frame_rate", order.fps, limits.frame_rates)


def _style(order: Order, _limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    yield from _rule_problems("style", order.style, STYLES, profile)


def _camera(order: Order, _limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    yield from _rule_problems("camera", order.camera, CAMERAS, profile)


def _rule_problems(
    name: str, asked: str | None, rules: Mapping[str, object], profile: ModelProfile
) -> Iterator[FieldProblem]:
    if asked is None:
        return
    if not profile.has_prompt_rules:
        yield _no_rules(name, profile)
    elif asked not in rules:
        yield _not_offered(name, asked, tuple(rules))


def _physics(order: Order, _limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.enable_physics and not profile.has_prompt_rules:
        yield _no_rules("enable_physics", profile)


def _lora(order: Order, _limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    """Whether there is one of that name, and for whom, `services.loras` says."""
    if order.lora is not None and not profile.takes_loras:
        yield FieldProblem(
            pointer="#/lora",
            code="unsupported",
            message=f"the model {profile.name} takes no LoRAs; leave lora out",
        )
    elif order.lora_strength is not None:
        yield from judge_strength(order.lora_strength, "lora/strength")


def _language(order: Order, _limits: Limits, profile: ModelProfile) -> Iterator[FieldProblem]:
    offered = tuple(name for name in LANGUAGES if name in profile.languages)
    if order.language is not None and order.language not in offered:
        yield _not_offered("language", order.language, offered)


def _seed(order: Order, _limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.seed is None or 0 <= order.seed <= SEED_MAX:
        return
    code, limit = ("min", 0) if order.seed < 0 else ("max", SEED_MAX)
    message = f"it must be 0 to {SEED_MAX}; leave it out for a random one"
    yield FieldProblem(pointer="#/seed", code=code, message=message, limit=limit)


def _priority(order: Order, _limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.priority not in PRIORITIES:
        yield _not_offered("priority", order.priority, tuple(PRIORITIES))


def _reference(order: Order, _limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    if order.client_reference is not None:
        yield from _text_problems(
            "client_reference", order.client_reference, CLIENT_REFERENCE_MAX_CHARS
        )


def _metadata(order: Order, _limits: Limits, _profile: ModelProfile) -> Iterator[FieldProblem]:
    if len(order.metadata) > METADATA_MAX_PAIRS:
        yield FieldProblem(
            pointer="#/metadata",
            code="max_items",
            message=f"it has {len(order.metadata)} pairs, the limit is {METADATA_MAX_PAIRS}",
            limit=METADATA_MAX_PAIRS,
        )
    for key, value in order.metadata.items():
        yield from _text_problems("metadata", key, METADATA_KEY_MAX_CHARS)
        pointer = "metadata/" + key.replace("~", "~0").replace("/", "~1")
        yield from _text_problems(pointer, value, METADATA_VALUE_MAX_CHARS)


def _not_offered(name: str, value: object, offered: tuple[object, ...]) -> FieldProblem:
    choices = ", ".join(map(str, offered))
    return FieldProblem(
        pointer=f"#/{name}",
        code="not_offered",
        message=f"{str(value)[:40]!r} is not on offer; choose one of: {choices}",
        limit=choices,
    )


def _no_rules(name: str, profile: ModelProfile) -> FieldProblem:
    return FieldProblem(
        pointer=f"#/{name}",
        code="unsupported",
        message=f"the model {profile.name} has no prompt rules; leave {name} out",
    )


_CHECKS: tuple[Check, ...] = (
    _prompt,
    _negative,
    _resolution,
    _aspect,
    _duration,
    _frame_rate,
    _style,
    _camera,
    _physics,
    _lora,
    _language,
    _seed,
    _priority,
    _reference,
    _metadata,
)
