"""Storyboards on the server, as typed values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from pydantic import Field

from vidmill.client._models import Failure, File, Interval, Wire

OVER = frozenset({"completed", "failed", "cancelled"})
"""States in which nothing of a storyboard is under way."""

Shot = str | Mapping[str, Any]
"""A prompt, or the fields of a clip as the API has them and `crossfade` into the next shot."""


class StoryboardOptions(TypedDict, total=False):
    """What all shots of a storyboard share.

    Attributes:
        crossfade: Seconds for which each shot fades into the next one; 0 = a cut.
        webhook_url: Told when the whole is there, or cannot be made.
    """

    name: str | None
    resolution: str
    aspect_ratio: str
    frame_rate: int | None
    priority: str
    crossfade: float
    webhook_url: str | None


class StoryboardPrice(Wire):
    """Credits of the shots in use."""

    credits: int = 0


class StoryboardEstimate(Wire):
    """What a storyboard would be. `shots`: credits of each."""

    duration: float
    price: StoryboardPrice
    shots: list[int] = Field(default_factory=list)


class StoryboardShot(Wire):
    """One shot, an ordinary task. `number` counts from 1."""

    number: int
    task_id: str
    status: str
    progress: float = 0.0
    prompt: str | None = None
    seed: int | None = None
    duration: float = 0.0
    crossfade: float = 0.0
    price_credits: int = 0
    error: Failure | None = None


class JoinedFile(File):
    """The whole: the facts of the video, and all files by variant.

    Attributes:
        revision: Which state of the shots it shows.
        files: `video`, `poster` and `preview`.
    """

    revision: int = 1
    expires_at: datetime | None = None
    frames: int = 0
    frame_rate: float = 0.0
    duration: float = 0.0
    timings_s: dict[str, float] = Field(default_factory=dict)
    files: dict[str, File] = Field(default_factory=dict)


class Storyboard(Wire):
    """How a storyboard stands.

    Attributes:
        state: `rendering`, `joining`, `completed`, `failed`, `cancelling` or `cancelled`.
        progress: 0..1, of its shots and of the joining.
        revision: Grows with each shot that is replaced.
        duration: Of the whole, seconds.
        result: While shots are replaced, that of an earlier revision.
    """

    storyboard_id: str
    name: str | None = None
    state: str
    progress: float = 0.0
    revision: int = 1
    resolution: str = ""
    aspect_ratio: str = ""
    frame_rate: int = 0
    duration: float = 0.0
    price: StoryboardPrice = StoryboardPrice()
    eta_finish: Interval | None = None
    shots: list[StoryboardShot] = Field(default_factory=list)
    result: JoinedFile | None = None
    error: Failure | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        return self.state in OVER


class StoryboardPage(Wire):
    data: list[Storyboard]
    next_cursor: str | None = None
