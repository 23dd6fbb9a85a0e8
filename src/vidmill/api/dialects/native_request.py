"""The native request: from JSON to an order, with every wrong field named at once."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from vidmill.domain.clip import SEED_MAX, normalise_text
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.order import (
    CLIENT_REFERENCE_MAX_CHARS,
    METADATA_MAX_PAIRS,
    PRIORITIES,
    Order,
)
from vidmill.domain.prompt_rules import STYLES
from vidmill.domain.prompting import LANGUAGES

Check = Callable[[Order], list[FieldProblem]]


def _schema(**facts: Any) -> Any:
    """Facts for the documentation alone: the limits themselves are checked by `domain.order`."""
    return Field(json_schema_extra=facts)


class GenerateBody(BaseModel):
    """A clip to make; only `prompt` is required. The capabilities say what is on offer."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        title="GenerateRequest",
        json_schema_extra={
            "examples": [
                {"prompt": "a red ball bounces on a blue floor", "duration": 3.0, "seed": 7}
            ]
        },
    )

    prompt: Annotated[str, _schema(minLength=1, maxLength=200, pattern=r"\S")] = Field(
        description="What the clip shows. Code points of the NFC text, trimmed, are counted."
    )
    negative_prompt: Annotated[str | None, _schema(maxLength=500)] = Field(
        None, description="What it must not show."
    )
    use_default_negative_prompt: bool = Field(
        True, description="Append the model's own negative prompt; the task shows what was used."
    )
    resolution: Annotated[str, _schema(enum=["480p", "720p"])] = Field(
        "720p", description="Delivered size: 832x480 or 1280x720."
    )
    duration: Annotated[float, _schema(minimum=3.0, maximum=10.0)] = Field(
        5.0, description="Seconds, in steps of 0.1."
    )
    frame_rate: Annotated[int | None, _schema(examples=[24])] = Field(
        None, description="Delivered frames per second; absent = 24."
    )
    style: Annotated[str | None, _schema(examples=list(STYLES))] = Field(
        None,
        description="Adds the style's words to the prompt, visibly, where the model has rules.",
    )
    language: Annotated[str | None, _schema(examples=list(LANGUAGES))] = Field(
        None, description="Of the words that rules add; absent = the prompt's own."
    )
    enable_physics: bool = Field(
        False, description="Adds words that ask for plausible motion, where the model has rules."
    )
    seed: Annotated[int | None, _schema(minimum=0, maximum=SEED_MAX)] = Field(
        None, description="Same seed, same clip; absent = a random one, shown on the task."
    )
    priority: Annotated[str, _schema(enum=list(PRIORITIES))] = Field(
        "normal", description="`high` is for VIP tenants."
    )
    cache: bool = Field(
        True,
        description="An identical clip of yours will do: one that is there answers at once, one "
        "on its way is shared. `false` = make a new one.",
    )
    client_reference: Annotated[str | None, _schema(maxLength=CLIENT_REFERENCE_MAX_CHARS)] = Field(
        None, description="Your own name for it: echoed, and a filter of the list."
    )
    metadata: Annotated[dict[str, str] | None, _schema(maxProperties=METADATA_MAX_PAIRS)] = Field(
        None, description="Short pairs of text, echoed on the task."
    )
    webhook_url: Any = Field(None, description="Refused in this release: follow the events.")
    lora: Any = Field(None, description="Refused in this release.")


LATER: Mapping[str, str] = {
    "webhook_url": "callbacks come with a later release; leave it out and follow the task's events",
    "lora": "LoRAs come with a later release; leave it out",
}
"""Fields that are known, and not there yet: refusing them is better than ignoring them."""

_CODES: Mapping[str, str] = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "finite_number": "type",
}

_REMEDIES: Mapping[str, str] = {
    "missing": "it is missing; add it",
    "string_type": "it must be text",
    "bool_type": "it must be true or false",
    "int_type": "it must be a whole number, without quotes or a decimal point",
    "float_type": "it must be a number, without quotes",
    "finite_number": "it must be a finite number",
    "dict_type": "it must be an object of text pairs",
    "string_unicode": "it is not valid Unicode",
    "model_type": "the body must be a JSON object",
}


def read_order(data: object, check: Check) -> Order:
    """Return the order that *data*, a parsed body, places. *check* finds values beyond limits.

    Raises:
        InvalidRequest: It names wrong types, unknown fields and broken limits together.
    """
    try:
        body = GenerateBody.model_validate(data)
    except ValidationError as error:
        wrong = [_field_problem(detail) for detail in error.errors(include_url=False)]
        raise InvalidRequest([*wrong, *_also_wrong(data, wrong, check)]) from None
    if later := _later(body):
        raise InvalidRequest([*later, *check(_order(body))])
    return _order(body)


def _order(body: GenerateBody) -> Order:
    reference = body.client_reference
    return Order(
        prompt=normalise_text(body.prompt),
        negative_prompt=normalise_text(body.negative_prompt or ""),
        use_default_negative_prompt=body.use_default_negative_prompt,
        resolution=body.resolution,
        duration_s=body.duration,
        fps=body.frame_rate,
        style=body.style,
        language=body.language,
        enable_physics=body.enable_physics,
        seed=body.seed,
        priority=body.priority,
        client_reference=None if reference is None else normalise_text(reference),
        metadata=body.metadata or {},
        cache=body.cache,
    )


def _also_wrong(data: object, wrong: Iterable[FieldProblem], check: Check) -> list[FieldProblem]:
    """Return what is wrong with well-typed fields, as if the others had been left out."""
    if not isinstance(data, dict):
        return []
    bad = {problem.pointer.split("/")[1] for problem in wrong if "/" in problem.pointer}
    good = {
        name: value
        for name, value in data.items()
        if name in GenerateBody.model_fields and name not in bad
    }
    body = GenerateBody.model_validate({"prompt": "-", **good})
    return [*_later(body), *check(_order(body))]


def _later(body: GenerateBody) -> list[FieldProblem]:
    return [
        FieldProblem(pointer=f"#/{name}", code="unsupported", message=remedy)
        for name, remedy in LATER.items()
        if getattr(body, name) is not None
    ]


def _field_problem(detail: ErrorDetails) -> FieldProblem:
    kind, path = detail["type"], detail["loc"]
    is_unknown = kind == "extra_forbidden"
    message = _did_you_mean(str(path[-1])) if is_unknown else _REMEDIES.get(kind, detail["msg"])
    return FieldProblem(
        pointer="".join(["#", *(f"/{_escaped(str(part))}" for part in path)]),
        code=_CODES.get(kind, "type"),
        message=message,
    )


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name[:60], GenerateBody.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "remove it"
    return f"there is no field {name[:60]!r}; {hint}"


def _escaped(part: str) -> str:
    """Return one part of a JSON pointer (RFC 6901 §3), cut to a length worth reading."""
    return part[:60].replace("~", "~0").replace("/", "~1")
