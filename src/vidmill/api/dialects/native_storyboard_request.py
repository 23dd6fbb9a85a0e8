"""Requests about storyboards: from JSON to orders, with every wrong field of every shot named."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidmill.api.dialects.native_request import (
    Check,
    field_problem,
    read_changes,
    read_order,
    text_problems,
)
from vidmill.domain.clip import normalise_text
from vidmill.domain.errors import FieldProblem, InvalidRequest
from vidmill.domain.order import Order
from vidmill.domain.storyboard import Length
from vidmill.services.storyboards import Sheet, ShotOrder

FADE = "crossfade"
SHARED = ("resolution", "aspect_ratio", "frame_rate", "priority")
"""Fields of a clip that all shots have from the storyboard."""

_NOT_A_SHOTS = (*SHARED, "webhook_url")

CheckWhole = Callable[[Sequence[Length]], list[FieldProblem]]


class StoryboardBody(BaseModel):
    """Shots to render and join."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        title="StoryboardRequest",
        json_schema_extra={
            "examples": [
                {
                    "name": "spring",
                    "resolution": "480p",
                    "crossfade": 0.5,
                    "shots": [
                        {"prompt": "a red ball rolls in", "duration": 4.0},
                        {"prompt": "a blue cube turns", "duration": 5.0, "seed": 7},
                    ],
                }
            ]
        },
    )

    shots: list[Any] = Field(
        description="In order. Of each the fields of `generate`, but for those that all shots"
        " share, and its own `crossfade` into the next one."
    )
    name: str | None = Field(None, description="Your name for it.")
    resolution: str = Field("720p", description="Of every shot, and of the whole.")
    aspect_ratio: str = Field("16:9", description="The same.")
    frame_rate: int | None = Field(None, description="The same; absent = 24.")
    priority: str = Field("normal", description="Of every shot's task.")
    crossfade: float = Field(
        0.0,
        description="Seconds for which each shot fades into the next one, where the shot says"
        " nothing else; 0 = a cut. At most half of the shorter of the two.",
    )
    webhook_url: str | None = Field(
        None, description="Told when the whole is there, or cannot be made."
    )


class ShotBody(BaseModel):
    """What is to be different about a shot; what is left out stays, but for the seed."""

    model_config = ConfigDict(extra="allow", title="ShotChanges")

    prompt: str | None = Field(None, description="And so any field of a shot.")
    seed: int | None = Field(None, description="Absent = a new random one.")
    crossfade: float | None = Field(None, description="Into the next shot, seconds.")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A storyboard as it was asked for."""

    sheet: Sheet
    shots: Sequence[ShotOrder]


def read_storyboard(
    data: object, check: Check, check_whole: CheckWhole, *, frame_rate: int
) -> Asked:
    """Return what *data*, a parsed body, asks for; *frame_rate* is the default.

    Args:
        data: The parsed body.
        check: Finds what is wrong with a shot by itself.
        check_whole: Finds what is wrong with shots taken together.
        frame_rate: The default.

    Raises:
        InvalidRequest: It names what is wrong with the whole and with every shot.
    """
    body, wrong = _body(data)
    shared = {name: value for name in SHARED if (value := getattr(body, name)) is not None}
    wrong += [] if body.name is None else text_problems("name", body.name)
    wrong += check(read_order({"prompt": "-", **shared, "webhook_url": body.webhook_url}, check))
    shots: list[ShotOrder] = []
    for number, item in enumerate(body.shots):
        is_last = number == len(body.shots) - 1
        try:
            shots.append(_shot(item, shared, check, crossfade_s=0.0 if is_last else body.crossfade))
        except InvalidRequest as error:
            wrong += [_inside(one, f"#/shots/{number}") for one in error.problems]
    if len(shots) == len(body.shots):
        wrong += _where_said(check_whole([shot.length for shot in shots]), body.shots)
    if wrong:
        raise InvalidRequest(wrong)
    sheet = Sheet(
        name=None if body.name is None else normalise_text(body.name),
        resolution=body.resolution,
        aspect_ratio=body.aspect_ratio,
        fps=body.frame_rate or frame_rate,
        priority=body.priority,
        webhook_url=body.webhook_url,
    )
    return Asked(sheet=sheet, shots=shots)


def read_shot_changes(
    data: object,
    asked: Mapping[str, Any],
    shared: Mapping[str, Any],
    check: Check,
    *,
    crossfade_s: float,
) -> ShotOrder:
    """Return the shot made from *asked*, the request of the one it replaces, and changes to it.

    Raises:
        InvalidRequest: As `read_storyboard`.
    """

    def read(item: Mapping[str, Any]) -> Order:
        return read_changes({**item, **shared}, asked, check)

    return _read_shot(data, read, check, crossfade_s=crossfade_s)


def read_fade(changes: object) -> float | None:
    """Return the cross-fade of *changes* that change nothing else; None: the shot is made anew."""
    if isinstance(changes, dict) and set(changes) == {FADE}:
        return _seconds(changes[FADE])
    return None


def _shot(
    data: object, shared: Mapping[str, Any], check: Check, *, crossfade_s: float
) -> ShotOrder:
    def read(item: Mapping[str, Any]) -> Order:
        return read_order({**item, **shared}, check)

    return _read_shot(data, read, check, crossfade_s=crossfade_s)


def _read_shot(
    data: object, read: Callable[[Mapping[str, Any]], Order], check: Check, *, crossfade_s: float
) -> ShotOrder:
    if not isinstance(data, dict):
        raise InvalidRequest([_problem("", "type", "it must be an object with a prompt")])
    wrong = [
        _problem(name, "unsupported", "all shots share it; set it on the storyboard")
        for name in _NOT_A_SHOTS
        if name in data
    ]
    item = {name: value for name, value in data.items() if name not in (*_NOT_A_SHOTS, FADE)}
    fade = crossfade_s if data.get(FADE) is None else _seconds(data[FADE])
    if fade is None:
        wrong.append(_problem(FADE, "type", "it must be a number of seconds; 0 = a cut"))
    try:
        order = read(item)
        wrong += _own(check(order))
    except InvalidRequest as error:
        wrong += _own(error.problems)
    if wrong or fade is None:
        raise InvalidRequest(wrong)
    return ShotOrder(order=order, crossfade_s=fade)


def _own(problems: Sequence[FieldProblem]) -> list[FieldProblem]:
    """Return *problems* without those of shared fields, which are said of the whole."""
    shared = {f"#/{name}" for name in _NOT_A_SHOTS}
    return [problem for problem in problems if problem.pointer not in shared]


def _seconds(value: object) -> float | None:
    """Return *value* if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _body(data: object) -> tuple[StoryboardBody, list[FieldProblem]]:
    """Return the body without the fields that are wrong, and what is wrong with these."""
    try:
        return StoryboardBody.model_validate(data), []
    except ValidationError as error:
        known = StoryboardBody.model_fields
        details = error.errors(include_url=False)
    wrong = [field_problem(detail, known) for detail in details]
    bad = {detail["loc"][0] for detail in details if detail["loc"]}
    items = data.items() if isinstance(data, dict) else ()
    good = {name: value for name, value in items if name not in bad}
    if "shots" not in good:
        raise InvalidRequest(wrong)
    return StoryboardBody.model_validate(good), wrong


def _where_said(problems: Sequence[FieldProblem], shots: Sequence[Any]) -> list[FieldProblem]:
    """Return *problems*, those of a fade that all shots share once, at the field that says it."""
    own = {f"#/shots/{n}/{FADE}" for n, shot in enumerate(shots) if shot.get(FADE) is not None}
    shared = [one for one in problems if one.pointer.endswith(FADE) and one.pointer not in own]
    rest = [one for one in problems if one not in shared]
    if not shared:
        return rest
    strictest = min(shared, key=lambda one: float(one.limit or 0))
    return [replace(strictest, pointer=f"#/{FADE}"), *rest]


def _inside(problem: FieldProblem, place: str) -> FieldProblem:
    return replace(problem, pointer=problem.pointer.replace("#", place, 1))


def _problem(name: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{name}" if name else "#", code=code, message=message)
