"""What travels on the wire, as typed values.

Fields that a newer server adds are kept and ignored: an old SDK goes on working with it.
"""

from datetime import datetime
from typing import Any, Literal, Self, TypedDict

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from vidmill.client._misfits import refusal

FINISHED = frozenset({"completed", "failed", "cancelled"})
"""Statuses that never change again."""


class Wire(BaseModel):
    """An answer: whatever else it says is kept, and nothing changes it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ClipOptions(TypedDict, total=False):
    """The optional fields of `ClipRequest`, as keyword arguments of `generate`."""

    duration_s: float
    resolution: str
    aspect_ratio: str
    frame_rate: int | None
    seed: int | None
    negative_prompt: str | None
    use_default_negative_prompt: bool
    style: str | None
    camera: str | None
    language: str | None
    enable_physics: bool
    lora: dict[str, Any] | None
    enhance: bool
    priority: str
    cache: bool
    client_reference: str | None
    metadata: dict[str, str] | None
    webhook_url: str | None


class ClipRequest(BaseModel):
    """What to make. The server checks it; its limits are in `Capabilities`.

    Attributes:
        duration_s: Delivered length in seconds.
        resolution: `480p` or `720p`.
        aspect_ratio: `16:9`, `9:16`, `1:1`, `4:3` or `3:4`.
        frame_rate: Delivered frames per second; None = the server's default, usually 24.
        seed: Same seed, same clip (on the same machine and model); None = a random one.
        negative_prompt: What to avoid, beside the model's own list.
        use_default_negative_prompt: False drops the model's own list.
        camera: How it moves, one of `Capabilities.cameras`.
        language: Of the words that rules add (`style`, `camera`, `enable_physics`); None = the
            prompt's own.
        lora: The brand style to draw in, `{"name": "acme", "strength": 0.8}`; see `loras.list`.
        enhance: The operator's language model writes the prompt out first, if there is one.
        priority: `normal` or `low`; `high` for those who may.
        cache: An identical clip that is there, or on its way, will do; False = a new one.
        client_reference: Your own name for it; echoed everywhere, and a filter of `tasks`.
        webhook_url: Told when the task is over, signed with the tenant's default secret.

    Raises:
        InvalidRequest: A field is missing, unknown or of the wrong type; nothing was sent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    duration_s: float = 5.0
    resolution: str = "720p"
    aspect_ratio: str = "16:9"
    frame_rate: int | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    use_default_negative_prompt: bool = True
    style: str | None = None
    camera: str | None = None
    language: str | None = None
    enable_physics: bool = False
    lora: dict[str, Any] | None = None
    enhance: bool = False
    priority: str = "normal"
    cache: bool = True
    client_reference: str | None = None
    metadata: dict[str, str] | None = None
    webhook_url: str | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _told_as_ours(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise refusal(error, cls.model_fields) from error

    def to_wire(self) -> dict[str, Any]:
        """Return the request body: the main fields, and others where they differ from defaults."""
        body = self.model_dump(exclude_defaults=True) | {"resolution": self.resolution}
        body.pop("duration_s", None)
        return body | {"duration": self.duration_s}


def changes_to_wire(changes: ClipOptions, prompt: str | None) -> dict[str, Any]:
    """Return the body that states *changes* and nothing else."""
    body: dict[str, Any] = {**changes} if prompt is None else {**changes, "prompt": prompt}
    duration_s = body.pop("duration_s", None)
    return body if duration_s is None else body | {"duration": duration_s}


class Eta(Wire):
    """Seconds until the clip is there: likely (`p50`), and almost surely (`p90`)."""

    p50: float
    p90: float


class Price(Wire):
    """What a task costs. `state`: `held` until it is over, then `captured` or `released`."""

    credits: int
    state: str


class Failure(Wire):
    """Why a task failed, or why its last run did."""

    code: str
    message: str
    retryable: bool = False


class File(Wire):
    """One delivered file. `url` is signed and expires."""

    url: str = ""
    content_type: str = ""
    size_bytes: int = 0
    md5: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0


class Result(File):
    """What a completed task delivers: the facts of the video, and all files by variant.

    Attributes:
        native_width, native_height: What the model drew; a larger clip is upscaled, not sharper.
        files: `video`, `poster` and `preview`.
    """

    expires_at: datetime | None = None
    frames: int = 0
    frame_rate: float = 0.0
    duration: float = 0.0
    seed: int | None = None
    native_width: int | None = None
    native_height: int | None = None
    native_frame_rate: float | None = None
    native_frames: int | None = None
    is_upscaled: bool | None = None
    model: dict[str, str] = {}
    timings_s: dict[str, float] = {}
    files: dict[str, File] = {}


class Task(Wire):
    """A clip being made, or made.

    Attributes:
        progress: 0..1; never falls, 1 only when completed.
        phase: What is going on now, e.g. `denoising`; newer servers may add phases.
        queue_position: 0 = next; None unless it waits for a worker.
        eta: None until the server has measured such a clip.
        cached: Another task's run makes, or made, its files.
        price: None where the server is older than prices.
        steps: Denoising steps, where the server states them.
        parent_task_id: The task that this one repeats or varies, by `retry` or `regenerate`.
        prompt: What the engine reads, additions included; the caller's own is in `request`.
    """

    task_id: str
    status: str
    progress: float = 0.0
    phase: str | None = None
    queue_position: int | None = None
    eta: Eta | None = None
    cached: bool = False
    price: Price | None = None
    attempt: int = 0
    max_attempts: int = 0
    cancel_requested: bool = False
    error: Failure | None = None
    error_message: str | None = None
    result_url: str | None = None
    request: dict[str, Any] | None = None
    result: Result | None = None
    prompt: str | None = None
    duration: float | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    parent_task_id: str | None = None
    steps: int | None = None
    seed: int | None = None
    client_reference: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    queued_s: float | None = None
    running_s: float | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    def updated(self, news: "Task") -> "Task":
        """Return this task with the fields that *news* states."""
        stated = {name: getattr(news, name) for name in news.model_fields_set}
        return self.model_copy(update=stated)


class TaskEvent(Wire):
    """News of a task.

    Attributes:
        id: Where to go on after a break: `events(task, after=id)`.
        type: `t2v.task.queued`, `processing`, `progress`, `retrying`, `completed`, `failed` or
            `cancelled`.
        task: How it stands, without its request and result.
    """

    id: str
    type: str
    timestamp: datetime | None = None
    task: Task


class Interval(Wire):
    """Seconds from now: hardly less than `p10`, likely `p50`, hardly more than `p90`."""

    p10: float
    p50: float
    p90: float


class Page(Wire):
    """Part of a list of tasks; `next_cursor` leads to the next part."""

    data: list[Task]
    has_more: bool = False
    next_cursor: str | None = None


class ModelInfo(Wire):
    """The model the server runs. `is_toy`: a smoke-test model, not one to judge pictures by."""

    name: str
    title: str = ""
    revision: str = ""
    licence: str = ""
    is_toy: bool = False
    steps: int | None = None


class EngineInfo(Wire):
    """Who draws. `progress` is step, percent or state; `cancel` is now, queued or no."""

    name: str
    is_remote: bool = False
    progress: str = "step"
    cancel: str = "now"


class ResolutionInfo(Wire):
    """A delivered size, and the size the model draws at."""

    name: str
    width: int
    height: int
    native_width: int
    native_height: int


class OfferedLora(Wire):
    """A brand style that `lora` may name.

    Attributes:
        strength: Where a request names none.
        trigger_words: Added to prompts that lack them.
    """

    name: str
    strength: float = 1.0
    trigger_words: list[str] = []
    licence: str = ""


class DurationRange(Wire):
    """Seconds."""

    min: float
    max: float
    step: float


class Limits(Wire):
    """What requests are checked against."""

    prompt_max_chars: int
    negative_prompt_max_chars: int
    seed_max: int


class Capabilities(Wire):
    """What the server can make; every limit it checks."""

    model: ModelInfo
    engine: EngineInfo | None = None
    resolutions: list[ResolutionInfo]
    duration: DurationRange
    frame_rates: list[int]
    default_frame_rate: int
    languages: list[str] = []
    styles: list[str] = []
    cameras: list[str] = []
    aspect_ratios: dict[str, list[str]] = {}
    loras: list[OfferedLora] = []
    enhance: bool = False
    priorities: list[str] = []
    limits: Limits


class Check(Wire):
    """One thing the server needs."""

    name: str
    ok: bool
    detail: str = ""


class Readiness(Wire):
    """Whether tasks are being worked on, and what is still loading."""

    status: str = ""
    checks: list[Check] = []

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"

    @property
    def missing(self) -> str:
        """What is not there yet, in a few words."""
        return ", ".join(f"{c.name}: {c.detail}" for c in self.checks if not c.ok)


TaskFilter = Literal["queued", "processing", "completed", "failed", "cancelled"]
"""Statuses to list by."""
