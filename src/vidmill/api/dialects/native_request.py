"""The native request: from JSON to an order, with every wrong field named at once."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from vidmill.domain.clip import SEED_MAX, Aspect, forbidden_characters, normalise_text
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.lora import STRENGTH_MAX
from vidmill.domain.order import (
    CLIENT_REFERENCE_MAX_CHARS,
    METADATA_MAX_PAIRS,
    PRIORITIES,
    Order,
)
from vidmill.domain.prompt_rules import CAMERAS, STYLES
from vidmill.domain.prompting import LANGUAGES

Check = Callable[[Order], list[FieldProblem]]

NAME_MAX_CHARS = 200


def _schema(**facts: Any) -> Any:
    """Facts for the documentation alone: the limits themselves are checked by `domain.order`."""
    return Field(json_schema_extra=facts)


class LoraChoice(BaseModel):
    """A registered LoRA, and how much of it."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, _schema(maxLength=64)] = Field(description="What it is called.")
    strength: Annotated[float | None, _schema(exclusiveMinimum=0, maximum=STRENGTH_MAX)] = Field(
        None, description="Absent = the LoRA's own, shown on the task."
    )


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
        "720p", description="Delivered size: 832x480 or 1280x720 at 16:9."
    )
    aspect_ratio: Annotated[str, _schema(enum=list(Aspect))] = Field(
        "16:9", description="Shape of the picture; every shape has about as many pixels."
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
    camera: Annotated[str | None, _schema(examples=list(CAMERAS))] = Field(
        None,
        description="How the camera moves: adds words, visibly, where the model has rules. It takes"
        " the place of a style's own camera.",
    )
    language: Annotated[str | None, _schema(examples=list(LANGUAGES))] = Field(
        None, description="Of the words that rules add; absent = the prompt's own."
    )
    enable_physics: bool = Field(
        False, description="Adds words that ask for plausible motion, where the model has rules."
    )
    enhance: bool = Field(
        False,
        description="A language model of the operator's writes the prompt out first; the task shows"
        " both. Refused where none is configured.",
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
    webhook_url: Annotated[str | None, _schema(format="uri")] = Field(
        None, description="Told when it is over, signed with your default secret; see webhooks."
    )
    lora: LoraChoice | None = Field(
        None, description="The brand style to draw in; `GET /v1/t2v/loras` lists them."
    )


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
    "list_type": "it must be a list",
    "model_attributes_type": "it must be a JSON object",
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
        wrong = [field_problem(detail) for detail in error.errors(include_url=False)]
        raise InvalidRequest([*wrong, *_also_wrong(data, wrong, check)]) from None
    return _order(body)


def read_changes(data: object, asked: Mapping[str, Any], check: Check) -> Order:
    """Return the order of a task made from *asked*, the request of another, and changes to it.

    Without a seed in *data* it takes a new one, and without `cache` it is made anew.

    Raises:
        InvalidRequest: As `read_order`.
    """
    if not isinstance(data, dict):
        return read_order(data, check)
    kept = {name: asked[name] for name in GenerateBody.model_fields if asked.get(name) is not None}
    return read_order({**kept, "seed": None, "cache": False, **data}, check)


def _order(body: GenerateBody) -> Order:
    reference = body.client_reference
    return Order(
        prompt=normalise_text(body.prompt),
        negative_prompt=normalise_text(body.negative_prompt or ""),
        use_default_negative_prompt=body.use_default_negative_prompt,
        resolution=body.resolution,
        aspect_ratio=body.aspect_ratio,
        duration_s=body.duration,
        fps=body.frame_rate,
        style=body.style,
        camera=body.camera,
        language=body.language,
        enable_physics=body.enable_physics,
        lora=body.lora.name if body.lora else None,
        lora_strength=body.lora.strength if body.lora else None,
        enhance=body.enhance,
        seed=body.seed,
        priority=body.priority,
        client_reference=None if reference is None else normalise_text(reference),
        metadata=body.metadata or {},
        cache=body.cache,
        webhook_url=body.webhook_url,
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
    lora = data.get("lora")
    if "lora" in bad and isinstance(lora, dict) and isinstance(lora.get("name"), str):
        good["lora"] = {"name": lora["name"]}
    body = GenerateBody.model_validate({"prompt": "-", **good})
    return check(_order(body))


def text_problems(name: str, text: str) -> list[FieldProblem]:
    """Return what is wrong with *text*, a name that the caller gives to a thing of his."""

    def problem(code: str, message: str, limit: int | None = None) -> FieldProblem:
        return FieldProblem(pointer=f"#/{name}", code=code, message=message, limit=limit)

    if not text.strip():
        return [problem("blank", "it is blank; leave it out")]
    if len(text) > NAME_MAX_CHARS:
        message = f"it has {len(text)} characters, the limit is {NAME_MAX_CHARS}; shorten it"
        return [problem("max_length", message, NAME_MAX_CHARS)]
    if bad := forbidden_characters(text):
        message = f"it holds {', '.join(bad[:5])}; remove control and surrogate characters"
        return [problem("forbidden_character", message)]
    return []


def field_problem(
    detail: ErrorDetails, known: Iterable[str] = GenerateBody.model_fields
) -> FieldProblem:
    """Return what *detail* says, in our words; *known* are the fields there are."""
    kind, path = detail["type"], detail["loc"]
    message = _REMEDIES.get(kind, detail["msg"])
    if kind == "extra_forbidden":
        message = _did_you_mean(
            str(path[-1]), LoraChoice.model_fields if path[0] == "lora" else known
        )
    elif path == ("lora",):
        message = 'it must be an object: {"name": "acme", "strength": 0.8}'
    return FieldProblem(
        pointer="".join(["#", *(f"/{_escaped(str(part))}" for part in path)]),
        code=_CODES.get(kind, "type"),
        message=message,
    )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:60], list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else "remove it"
    return f"there is no field {name[:60]!r}; {hint}"


def _escaped(part: str) -> str:
    """Return one part of a JSON pointer (RFC 6901 §3), cut to a length worth reading."""
    return part[:60].replace("~", "~0").replace("/", "~1")
