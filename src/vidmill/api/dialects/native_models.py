"""The native dialect's answers as schemas. A test holds the real answers against them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vidmill.api.errors import Problem
from vidmill.domain.remote import Cancel, Progress

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]

TASK_ID = "t2v_019355f0c3a97c4e9d0b5a6f1e2d3c4b"


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Eta(_Doc):
    """Seconds until the task is done."""

    p50: float
    p90: float


class Interval(_Doc):
    """Seconds from now; the truth lies between p10 and p90 at least eight times in ten."""

    p10: float
    p50: float
    p90: float


class Price(_Doc):
    """What the task costs."""

    credits: int
    state: Literal["held", "captured", "released"] = Field(
        description="`held` until it is over, then `captured`; `released` if nothing was made."
    )


class TaskError(_Doc):
    """Why the last run failed."""

    code: str
    message: str | None
    retryable: bool


class Links(_Doc):
    """Where else to look, relative to the server."""

    self: str
    status: str
    result: str
    cancel: str
    run_next: str
    retry: str
    regenerate: str
    explain: str
    events: str
    content: str


class TaskStatus(_Doc):
    """How a task stands."""

    task_id: str = Field(examples=[TASK_ID])
    status: Status
    phase: str = Field(description="What is going on; newer servers may add phases.")
    progress: float = Field(ge=0, le=1, description="Never falls within an attempt; 1 = completed.")
    attempt: int = Field(description="Runs begun; progress begins anew with each. 0 = none yet.")
    max_attempts: int
    queue_position: int | None = Field(description="0 = next; null unless it waits for a worker.")
    eta: Eta | None = Field(description="null until such a clip was measured here.")
    eta_start: Interval | None = Field(description="When a worker takes it; null once one has.")
    eta_finish: Interval | None
    cached: bool = Field(description="Another task's run makes, or made, its files.")
    price: Price
    cancel_requested: bool
    result_url: str | None = Field(description="Signed, expires; ask again for a new one.")
    error_message: str | None
    error: TaskError | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    retry_at: str | None
    queued_s: float | None
    running_s: float | None
    client_reference: str | None
    prompt: str = Field(description="What the engine reads, additions included.")
    duration: float
    resolution: str
    aspect_ratio: str
    parent_task_id: str | None = Field(description="The task that this one repeats or varies.")
    links: Links


class File(_Doc):
    """One delivered file."""

    url: str
    content_type: str
    size_bytes: int
    md5: str
    sha256: str
    width: int
    height: int


class Result(File):
    """The clip and all about it; the file's own fields are those of the video."""

    poster_url: str | None
    preview_url: str | None
    expires_at: str
    native_width: int = Field(description="What the model really drew.")
    native_height: int
    native_frame_rate: int
    native_frames: int
    is_upscaled: bool = Field(description="The delivered size is larger than the drawn one.")
    frames: int
    frame_rate: int
    duration: float
    seed: int
    model: dict[str, str]
    timings_s: dict[str, float]
    files: dict[str, File]


class TaskResult(TaskStatus):
    """A finished task with its result."""

    poster_url: str | None
    preview_url: str | None
    result: Result


class Addition(_Doc):
    """Words that a prompt rule added."""

    rule: str
    target: str
    text: str


class Attempt(_Doc):
    """One run."""

    attempt: int
    started_at: str
    ended_at: str | None
    outcome: str | None
    error_code: str | None
    error_message: str | None


class Task(TaskStatus):
    """Everything about a task."""

    poster_url: str | None = None
    preview_url: str | None = None
    result: Result | None
    request: dict[str, Any] = Field(description="The request with its defaults.")
    metadata: dict[str, str]
    negative_prompt: str
    additions: list[Addition]
    prompt_rules_version: str | None
    language: str | None
    seed: int
    steps: int
    guidance_scale: float
    guidance_scale_2: float
    flow_shift: float
    model: dict[str, str]
    attempts: list[Attempt]


class Enhancement(_Doc):
    """What a language model made of the prompt, before rules added their words."""

    text: str
    model: str
    version: str = Field(description="Of the instructions that it was given.")


class Texts(_Doc):
    """A prompt as it was sent, and as the engine read it."""

    asked: str | None
    used: str


class Frames(_Doc):
    """Size and number of frames."""

    width: int
    height: int
    frames: int
    frame_rate: int


class PreviewFrame(_Doc):
    """A picture from the middle of a run: what the clip would be, as seen after `step` steps."""

    step: int
    of: int
    url: str


class DrawnLora(_Doc):
    name: str
    strength: float
    high_sha256: str
    low_sha256: str


class Explanation(_Doc):
    """All that decided the pixels of a task, and where its time went."""

    task_id: str = Field(examples=[TASK_ID])
    status: Status
    prompt: Texts
    negative_prompt: Texts
    enhancement: Enhancement | None
    additions: list[Addition]
    prompt_rules_version: str | None
    language: str | None
    seed: int
    seed_was_asked_for: bool = Field(description="`false`: it was drawn for you.")
    steps: int
    guidance_scale: float
    guidance_scale_2: float
    flow_shift: float
    drawn: Frames = Field(description="What the model draws.")
    delivered: Frames = Field(description="What the file holds.")
    model: dict[str, str] = Field(description="Name, revision and hash of its files.")
    loras: list[DrawnLora] = Field(description="The brand style it is drawn in, if any.")
    files_made_by: str = Field(description="The task whose run makes, or made, the files.")
    timings_s: dict[str, float] = Field(description="Seconds by phase of the run that delivered.")
    attempts: list[Attempt]
    preview_frames: list[PreviewFrame]


class EstimatedPrice(_Doc):
    credits: int


class Estimate(_Doc):
    """What a task would be if it were submitted now. Nothing was stored, held or charged."""

    cache_hit: bool = Field(description="An identical clip is there, or on its way.")
    price: EstimatedPrice | None
    gpu_s: float | None = Field(description="Expected seconds of a GPU; 0 from the cache.")
    queue_position: int | None
    eta_start: Interval | None
    eta_finish: Interval | None
    clips_left_today: int | None = Field(
        description="Of your plan's clips a day, this one not counted; null where none is set."
    )
    would_be_rejected: Problem | None = Field(description="Why it would be refused now.")
    request: dict[str, Any] | None = Field(description="The request with its defaults.")
    would_be_enhanced: bool = Field(
        description="A language model would write the prompt out first. An estimate does not ask"
        " it: `prompt` is null, and the cache is not looked into."
    )
    prompt: str | None = Field(description="What the engine would read, where that is known.")
    negative_prompt: str | None
    additions: list[Addition]


class TaskPage(_Doc):
    """Part of the list."""

    data: list[TaskStatus]
    has_more: bool
    next_cursor: str | None


class OfferedSize(_Doc):
    name: str
    width: int
    height: int
    native_width: int
    native_height: int


class Span(_Doc):
    min: float
    max: float
    step: float


class ModelFacts(_Doc):
    name: str
    title: str
    revision: str
    licence: str
    is_toy: bool
    steps: int


class EngineFacts(_Doc):
    """Who draws, and what may be expected of it."""

    name: str
    is_remote: bool = Field(description="Another server draws.")
    progress: Progress = Field(
        description="`step`: told at every step; `percent`: as often as its server is asked;"
        " `state`: no figure while it draws."
    )
    cancel: Cancel = Field(
        description="`now`: a clip stops within a second or so; `queued`, `no`: the task is"
        " cancelled, but its server draws on, where `queued` only if it had begun."
    )


class OfferedLora(_Doc):
    name: str
    strength: float
    trigger_words: list[str]
    licence: str


class Capabilities(_Doc):
    """What this server can make."""

    model: ModelFacts
    engine: EngineFacts
    resolutions: list[OfferedSize]
    aspect_ratios: dict[str, list[str]]
    duration: Span
    frame_rates: list[int]
    default_frame_rate: int
    native_frame_rate: int
    languages: list[str]
    styles: list[str]
    cameras: list[str] = Field(description="Terms that `camera` may name.")
    enable_physics: bool
    loras: list[OfferedLora] = Field(description="Brand styles that `lora` may name.")
    enhance: bool = Field(description="A prompt enhancer is configured.")
    prompt_rules_version: str | None
    default_negative_prompt: str
    priorities: list[str]
    limits: dict[str, int]


class Check(_Doc):
    name: str
    ok: bool
    detail: str


class Alive(_Doc):
    status: Literal["ok"]


class Readiness(_Doc):
    """Whether tasks are worked on, and what is still missing."""

    status: Literal["ready", "starting"]
    checks: list[Check]
