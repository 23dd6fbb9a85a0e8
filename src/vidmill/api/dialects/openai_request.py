"""What a `POST /v1/videos` asks for: OpenAI's fields, ours, and those of vLLM-Omni.

What the served model fixes (steps, guidance, ...) may be named only as it is: a value that would be
ignored is refused instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vidmill.api.dialects.native_request import Check, read_changes, read_order
from vidmill.api.dialects.openai_fields import (
    FILE,
    Reader,
    number,
    problem,
    read_each,
    text,
    text_pairs,
    truth,
    whole_number,
)
from vidmill.domain.clip import Aspect, Resolution
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.job import Job
from vidmill.domain.order import Order
from vidmill.domain.profile import ModelProfile

Sizes = Mapping[str, tuple[Resolution, Aspect]]

SIZE = "720x1280"
SECONDS = 4.0
"""What OpenAI's API makes where nothing is said."""

TEXT_ALONE = "clips are made from text alone here; leave it out"

_READERS: Mapping[str, Reader] = {
    "prompt": text,
    "model": text,
    "seconds": number,
    "size": text,
    "negative_prompt": text,
    "use_default_negative_prompt": truth,
    "style": text,
    "camera": text,
    "language": text,
    "enable_physics": truth,
    "seed": whole_number,
    "frame_rate": whole_number,
    "priority": text,
    "cache": truth,
    "client_reference": text,
    "metadata": text_pairs,
    "webhook_url": text,
    # vLLM-Omni's names
    "width": whole_number,
    "height": whole_number,
    "num_frames": whole_number,
    "fps": whole_number,
    "user": text,
    "num_inference_steps": whole_number,
    "guidance_scale": number,
    "guidance_scale_2": number,
    "boundary_ratio": number,
    "flow_shift": number,
}

_FIXED: Mapping[str, Callable[[ModelProfile], float]] = {
    "num_inference_steps": lambda profile: profile.steps,
    "guidance_scale": lambda profile: profile.guidance_scale,
    "guidance_scale_2": lambda profile: profile.guidance_scale_2,
    "boundary_ratio": lambda profile: profile.boundary_ratio,
    "flow_shift": lambda profile: profile.flow_shift,
}

_MEDIA = frozenset({"image_reference", "input_reference"})
_SAME = {"fps": "frame_rate", "user": "client_reference", "seconds": "duration"}
"""Fields that only have another name natively."""


def read_create(
    fields: Mapping[str, Any], check: Check, sizes: Sizes, profile: ModelProfile
) -> Order:
    """Return what *fields* ask for; *sizes* are those on offer.

    Raises:
        InvalidRequest: It names everything that is wrong.
    """
    given = dict(fields)
    media = [
        n for n, v in given.items() if v is FILE or n in ("input_reference", "image_reference")
    ]
    wrong = [problem(name[:60], "unsupported", TEXT_ALONE) for name in media]
    for name in media:
        del given[name]
    values, unreadable = read_each(given, _READERS)
    wrong += [*unreadable, *_fixed(values, profile), *_length(values), *_size(values, sizes)]
    wrong += _said_twice(values)
    model = values.pop("model", None)
    native = {_SAME.get(name, name): value for name, value in values.items()}
    # A repeated prompt is expected to give another clip, unless a seed says that it shall not.
    native.setdefault("cache", "seed" in native)
    try:
        order = read_order(native, check)
    except InvalidRequest as error:
        raise InvalidRequest([*wrong, *error.problems]) from None
    if wrong:
        raise InvalidRequest(wrong)
    return replace(order, model=model)


def read_remix(fields: Mapping[str, Any], source: Job, check: Check) -> Order:
    """Return what a remix of *source* asks for: its clip, seed and all, with another prompt.

    Raises:
        InvalidRequest: It names everything that is wrong.
    """
    values, wrong = read_each(fields, {"prompt": text})
    if "prompt" not in values and not wrong:
        wrong = [problem("prompt", "required", "it is missing; add it")]
    if wrong:
        raise InvalidRequest(wrong)
    changes = {"prompt": values["prompt"], "seed": source.spec.seed, "enhance": False}
    model = source.request.get("model")
    return replace(read_changes(changes, source.request, check), model=model)


def _said_twice(values: Mapping[str, Any]) -> list[FieldProblem]:
    """Return what is given under both of its names: one of the two would be ignored."""
    return [
        problem(name, "repeated", f"give it or {native!r}, not both")
        for name, native in _SAME.items()
        if name in values and native in values
    ]


def _fixed(values: dict[str, Any], profile: ModelProfile) -> list[FieldProblem]:
    """Take what the model fixes out of *values*; return what was asked for otherwise."""
    wrong = []
    for name, of_model in _FIXED.items():
        asked = values.pop(name, None)
        if asked is not None and asked != of_model(profile):
            message = f"{profile.name} is served with {of_model(profile):g}; leave it out"
            wrong.append(problem(name, "not_offered", message))
    return wrong


def _length(values: dict[str, Any]) -> list[FieldProblem]:
    """Turn a number of frames into seconds."""
    num_frames = values.pop("num_frames", None)
    if num_frames is None:
        values.setdefault("seconds", SECONDS)
        return []
    if "seconds" in values or not values.get("fps"):
        return [problem("num_frames", "repeated", "give `seconds`, or `num_frames` and `fps`")]
    values["seconds"] = round(num_frames / values["fps"], 1)
    return []


def _size(values: dict[str, Any], sizes: Sizes) -> list[FieldProblem]:
    """Turn pixels into a resolution and a shape; a size that is not offered is never clamped."""
    sides = [values.pop(name) for name in ("width", "height") if name in values]
    asked = values.pop("size", None)
    if sides and (asked is not None or len(sides) == 1):
        return [problem("size", "repeated", "give `size`, or both `width` and `height`")]
    name = "x".join(map(str, sides)) or asked or SIZE
    if name not in sizes:
        offered = ", ".join(sizes)
        message = f"{name[:40]!r} is not offered; choose one of: {offered}"
        return [problem("size", "not_offered", message)]
    resolution, aspect = sizes[name]
    values |= {"resolution": resolution.value, "aspect_ratio": aspect.value}
    return []
