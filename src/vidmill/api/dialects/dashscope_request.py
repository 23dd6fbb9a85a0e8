"""The body of a DashScope submit: its names for things, turned into the native API's.

Fields of the native API may stand in `input` or `parameters`, where the SDKs put every keyword they
do not know. What is neither known nor harmless is refused by name: ignoring it would be worse.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from vidmill.api.dialects.native_request import Check, read_order
from vidmill.domain.clip import Aspect, Resolution
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.order import Order

Sizes = Mapping[str, tuple[Resolution, Aspect]]

_HARMLESS = frozenset({"extend_prompt", "function", "prompt_extend"})
"""Sent by the SDKs whether asked or not, or allowing a rewriting of prompts that is not done."""

_MEDIA = frozenset(
    {
        "audio_url",
        "first_frame_url",
        "head_frame",
        "img_url",
        "last_frame_url",
        "media",
        "reference_url",
        "reference_urls",
        "reference_video_description",
        "reference_video_urls",
        "tail_frame",
    }
)

TEXT_ALONE = "clips are made from text alone here; send no images, sounds or clips"


class Submit(NamedTuple):
    """What is asked for, and of which model."""

    model: str
    order: Order


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    input: dict[str, Any]
    parameters: dict[str, Any] | None = None
    resources: None = None


def read_submit(data: object, check: Check, sizes: Sizes) -> Submit:
    """Return what *data*, a parsed body, asks for; *sizes* are those on offer.

    Raises:
        InvalidRequest: It names everything that is wrong.
    """
    try:
        body = _Body.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest([_problem_of(detail) for detail in error.errors()]) from None
    given, parameters = _given(body.input), _given(body.parameters or {})
    twice = [
        _problem(name, "repeated", "it is in `input` and in `parameters`; keep one")
        for name in sorted(given.keys() & parameters.keys())
    ]
    native, refused = _native({**parameters, **given}, sizes)
    wrong = [*twice, *refused]
    try:
        order = read_order(native, check)
    except InvalidRequest as error:
        raise InvalidRequest([*wrong, *error.problems]) from None
    if wrong:
        raise InvalidRequest([*wrong, *check(order)])
    return Submit(body.model, order)


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in fields.items() if value is not None and name not in _HARMLESS
    }


def _native(given: Mapping[str, Any], sizes: Sizes) -> tuple[dict[str, Any], list[FieldProblem]]:
    """Return the native body, and what of *given* it has no place for."""
    left = dict(given)
    wrong = [_problem(n, "unsupported", TEXT_ALONE) for n in sorted(_MEDIA & left.keys())]
    for name in _MEDIA:
        left.pop(name, None)
    if left.pop("watermark", False):
        wrong.append(_problem("watermark", "unsupported", "there are no watermarks; leave it out"))
    shape, misshapen = _shape(left, sizes)
    # A repeated prompt is expected to give another clip, unless a seed says that it shall not.
    return {"cache": "seed" in left, **left, **shape}, [*wrong, *misshapen]


def _shape(left: dict[str, Any], sizes: Sizes) -> tuple[dict[str, Any], list[FieldProblem]]:
    """Take the names of sizes out of *left*; return the native ones for them."""
    size, tier, ratio = (left.pop(name, None) for name in ("size", "resolution", "ratio"))
    if size is None:
        tier = tier.lower() if isinstance(tier, str) else tier
        named = {"resolution": tier, "aspect_ratio": ratio}
        return {name: value for name, value in named.items() if value is not None}, []
    if tier is not None or ratio is not None:
        message = "give either `size`, or `resolution` and `ratio`"
        return {}, [_problem("size", "repeated", message)]
    found = sizes.get(size.replace("*", "x")) if isinstance(size, str) else None
    if found is None:
        return {}, [_problem("size", "not_offered", _not_offered(size, sizes))]
    resolution, aspect = found
    return {"resolution": resolution.value, "aspect_ratio": aspect.value}, []


def _not_offered(size: object, sizes: Collection[str]) -> str:
    offered = ", ".join(name.replace("x", "*") for name in sizes)
    return f"{str(size)[:40]!r} is not offered; choose one of: {offered}"


def _problem_of(detail: Mapping[str, Any]) -> FieldProblem:
    path = "/".join(str(part)[:60] for part in detail["loc"])
    message = _REMEDIES.get(detail["type"], detail["msg"])
    return _problem(path, "type", message)


_REMEDIES: Mapping[str, str] = {
    "missing": "it is missing; add it",
    "extra_forbidden": "there is no such field; remove it",
    "model_type": "the body must be a JSON object",
    "none_required": "it is not supported; leave it out",
}


def _problem(name: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{name}", code=code, message=message)
