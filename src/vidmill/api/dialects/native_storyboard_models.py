"""What routes of storyboards answer, as schemas. A test holds the real answers against them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vidmill.api.dialects.native_models import TASK_ID, File, Interval, Status, TaskError

STORYBOARD_ID = "sb_019355f0c3a97c4e9d0b5a6f1e2d3c4b"

State = Literal["rendering", "joining", "cancelling", "completed", "failed", "cancelled"]


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StoryboardPrice(_Doc):
    """The prices of the shots in use; joining costs nothing."""

    credits: int


class StoryboardShot(_Doc):
    """One shot, an ordinary task."""

    number: int = Field(description="From 1.")
    task_id: str = Field(examples=[TASK_ID], description="The task that makes it now.")
    status: Status
    progress: float
    prompt: str | None = Field(description="As you sent it; null once its task was deleted.")
    seed: int | None
    duration: float
    crossfade: float = Field(description="Seconds into the next shot; 0 = a cut.")
    price_credits: int
    error: TaskError | None


class JoinedFile(File):
    """The whole; the file's own fields are those of the video."""

    revision: int = Field(description="Of the shots that it shows.")
    poster_url: str | None
    preview_url: str | None
    expires_at: str
    frames: int
    frame_rate: int
    duration: float
    timings_s: dict[str, float]
    files: dict[str, File]


class StoryboardError(_Doc):
    """Why it failed, or why joining did the last time."""

    code: str
    message: str | None


class StoryboardLinks(_Doc):
    """Where else to look, relative to the server."""

    self: str
    cancel: str
    content: str
    shots: list[str] = Field(description="Where each shot is replaced.")


class Storyboard(_Doc):
    """How a storyboard stands."""

    storyboard_id: str = Field(examples=[STORYBOARD_ID])
    name: str | None
    state: State
    progress: float = Field(ge=0, le=1, description="Of its shots and the joining; 1 = completed.")
    revision: int = Field(description="Grows with each shot that is replaced.")
    resolution: str
    aspect_ratio: str
    frame_rate: int
    duration: float = Field(description="Of the whole: all shots, their cross-fades taken off.")
    priority: str
    price: StoryboardPrice
    eta_finish: Interval | None = Field(description="When its last shot is done.")
    shots: list[StoryboardShot]
    result: JoinedFile | None = Field(
        description="While shots are replaced, that of the earlier revision."
    )
    error: StoryboardError | None
    webhook_url: str | None
    created_at: str
    finished_at: str | None
    links: StoryboardLinks


class StoryboardPage(_Doc):
    """Part of the list."""

    data: list[Storyboard]
    has_more: bool
    next_cursor: str | None


class StoryboardEstimate(_Doc):
    """What a storyboard would be. Nothing was stored, held or charged."""

    duration: float
    price: StoryboardPrice
    shots: list[int] = Field(description="Credits of each shot, if it is rendered.")
