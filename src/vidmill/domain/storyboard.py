"""A storyboard: shots rendered as ordinary jobs, then joined into one long clip.

Its timeline is laid out in seconds and rounded once for each boundary, so the errors of many shots
do not add up: the whole is as long as asked for to half a frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

from vidmill.domain.clip import Asset
from vidmill.domain.errors import FieldProblem

SHOTS_MIN = 2


class BoardState(StrEnum):
    """Where a storyboard stands."""

    RENDERING = "rendering"  # a shot's task is under way, or was until a moment ago
    JOINING = "joining"  # every shot has its clip
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"  # a shot has no clip, or the clips cannot be joined
    CANCELLED = "cancelled"


class ShotState(StrEnum):
    """How the task of a shot ended; a trigger writes it."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = frozenset({BoardState.RENDERING, BoardState.JOINING, BoardState.CANCELLING})
"""States that end by themselves."""


@dataclass(frozen=True, kw_only=True)
class JoinedClip:
    """What a storyboard delivers.

    Attributes:
        revision: Which state of its shots was joined; each replaced shot begins a new one.
        assets: By variant: `video`, `poster`, `preview`.
    """

    revision: int
    assets: Mapping[str, Asset]
    fps: int
    num_frames: int
    duration_s: float
    timings_s: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        assets = {name: Asset(**asset) for name, asset in data["assets"].items()}
        return cls(**{**data, "assets": assets})


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a shot is, and how long it fades into the next one; 0 = a cut. Seconds."""

    duration_s: float
    crossfade_s: float = 0.0


@dataclass(frozen=True)
class Span:
    """Frames of the whole that show a shot; the last *fade* of them show the next one too."""

    frames: int
    fade: int = 0


def total_s(shots: Sequence[Length]) -> float:
    """Return how long the whole is."""
    return float(_starts_s(shots)[-1])


def spans(shots: Sequence[Length], fps: int) -> list[Span]:
    """Return which frames of the whole show each shot.

    A shot's clip may be a frame or two longer or shorter than its span: see `media.join`. No more
    than two shots are ever shown at once.
    """
    starts = [round(start * fps) for start in _starts_s(shots)]
    fades = [
        min(round(_exact(shot.crossfade_s) * fps), after - start)
        for shot, (start, after) in zip(shots[:-1], pairwise(starts[1:]), strict=True)
    ]
    return [
        Span(frames=after - start + fade, fade=fade)
        for (start, after), fade in zip(pairwise(starts), [*fades, 0], strict=True)
    ]


def problems(
    shots: Sequence[Length], *, shots_max: int, duration_max_s: float
) -> Iterator[FieldProblem]:
    """Yield what is wrong with the shots taken together."""
    count = len(shots)
    if count < SHOTS_MIN:
        message = f"{count} of at least {SHOTS_MIN} shots; add some, or `generate` a single clip"
        yield FieldProblem(pointer="#/shots", code="min_items", message=message, limit=SHOTS_MIN)
    elif count > shots_max:
        message = f"it has {count} shots, the limit is {shots_max}; make several storyboards of it"
        yield FieldProblem(pointer="#/shots", code="max_items", message=message, limit=shots_max)
    for number, (shot, following) in enumerate(pairwise(shots)):
        yield from _crossfade_problems(number, shot, following)
    if shots and shots[-1].crossfade_s:
        message = f"{shots[-1].crossfade_s:g} s, but no shot follows the last; leave it out"
        pointer = f"#/shots/{count - 1}/crossfade"
        yield FieldProblem(pointer=pointer, code="unsupported", message=message)
    if count and (whole_s := total_s(shots)) > duration_max_s:
        message = f"the whole is {whole_s:g} s long, the limit is {duration_max_s:g} s; shorten it"
        yield FieldProblem(pointer="#/shots", code="max", message=message, limit=duration_max_s)


def _crossfade_problems(number: int, shot: Length, following: Length) -> Iterator[FieldProblem]:
    pointer = f"#/shots/{number}/crossfade"
    most = min(shot.duration_s, following.duration_s) / 2
    if not shot.crossfade_s >= 0:
        message = f"{shot.crossfade_s:g} s is less than none; 0 is a cut"
        yield FieldProblem(pointer=pointer, code="min", message=message, limit=0)
    elif not shot.crossfade_s <= most:
        pair = f"shots {number + 1} and {number + 2}"
        message = (
            f"{shot.crossfade_s:g} s is more than half of the shorter of {pair}; at most {most:g} s"
        )
        yield FieldProblem(pointer=pointer, code="max", message=message, limit=most)


def _starts_s(shots: Sequence[Length]) -> list[Fraction]:
    """Return where each shot begins, and where the last one ends."""
    starts = [Fraction(0)]
    for shot in shots[:-1]:
        starts.append(starts[-1] + _exact(shot.duration_s) - _exact(shot.crossfade_s))
    return [*starts, starts[-1] + _exact(shots[-1].duration_s)]


def _exact(seconds: float) -> Fraction:
    return Fraction(str(seconds))  # 3.1 s are 31/10, not the double next to it
