"""What a clip would be, and why one is as it is: the answers of `estimate` and `explain`."""

from typing import Any

from pydantic import Field

from vidmill.client._models import Interval, Wire


class EstimatedPrice(Wire):
    credits: int


class Estimate(Wire):
    """What a task would be if it were submitted now. Nothing was stored, held or charged.

    Attributes:
        cache_hit: An identical clip is there, or on its way.
        gpu_s: Expected seconds of a GPU; 0 from the cache.
        clips_left_today: Of the plan's clips a day; None where none is set.
        would_be_rejected: The problem that a submit would meet now; None = it would be taken.
        would_be_enhanced: A language model would write the prompt out first; it was not asked.
        prompt: What the engine would read, additions included; None if `would_be_enhanced`.
    """

    cache_hit: bool = False
    price: EstimatedPrice | None = None
    gpu_s: float | None = None
    queue_position: int | None = None
    eta_start: Interval | None = None
    eta_finish: Interval | None = None
    clips_left_today: int | None = None
    would_be_rejected: dict[str, Any] | None = None
    request: dict[str, Any] | None = None
    would_be_enhanced: bool = False
    prompt: str | None = None
    negative_prompt: str | None = None
    additions: list[dict[str, Any]] = Field(default_factory=list)


class Enhancement(Wire):
    """What a language model made of the prompt, before rules added their words."""

    text: str
    model: str
    version: str


class Texts(Wire):
    """A prompt as it was sent, and as the engine read it."""

    asked: str | None = None
    used: str


class Frames(Wire):
    """Size and number of frames."""

    width: int
    height: int
    frames: int
    frame_rate: int


class PreviewFrame(Wire):
    """A picture from the middle of a run, as seen after `step` steps."""

    step: int
    of: int
    url: str


class Explanation(Wire):
    """All that decided the pixels of a task, and where its time went.

    Attributes:
        seed_was_asked_for: False: it was drawn for you.
        drawn: What the model draws; `delivered` is what the file holds.
        model: Name, revision and hash of its files.
        files_made_by: The task whose run makes, or made, the files.
        timings_s: Seconds by phase of the run that delivered.
    """

    task_id: str
    status: str
    prompt: Texts
    negative_prompt: Texts
    enhancement: Enhancement | None = None
    additions: list[dict[str, Any]] = Field(default_factory=list)
    prompt_rules_version: str | None = None
    language: str | None = None
    seed: int
    seed_was_asked_for: bool
    steps: int
    guidance_scale: float
    guidance_scale_2: float
    flow_shift: float
    drawn: Frames
    delivered: Frames
    model: dict[str, str] = Field(default_factory=dict)
    loras: list[dict[str, Any]] = Field(default_factory=list)
    files_made_by: str = ""
    timings_s: dict[str, float] = Field(default_factory=dict)
    attempts: list[dict[str, Any]] = Field(default_factory=list)
    preview_frames: list[PreviewFrame] = Field(default_factory=list)
