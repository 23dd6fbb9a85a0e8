"""The shapes of the DashScope dialect, for the reference. What makes them is `dashscope_views`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vidmill.domain.clip import SEED_MAX

TaskStatusWord = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED", "UNKNOWN"]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DashScopeInput(BaseModel):
    """What the clip shows. Fields of the native API may stand here, or among the parameters."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(examples=["a red ball bouncing on a blue background"])
    negative_prompt: str | None = Field(None, description="What it must not show.")
    extend_prompt: Any = Field(None, description="Ignored, as by the service.")
    function: Any = Field(None, description="Ignored, as by the service.")


class DashScopeParameters(BaseModel):
    """How it is made. Fields of the native API may stand here too."""

    model_config = ConfigDict(extra="allow")

    size: str | None = Field(
        None, description="`W*H`; absent = `1280*720`.", examples=["832*480", "720*1280"]
    )
    resolution: str | None = Field(
        None, description="Instead of `size`: `480P` or `720P`.", examples=["720P"]
    )
    ratio: str | None = Field(None, description="With `resolution`.", examples=["9:16"])
    duration: float | None = Field(None, description="Seconds; absent = 5.")
    seed: int | None = Field(None, ge=0, le=SEED_MAX)
    prompt_extend: Any = Field(None, description="No prompt is rewritten here.")
    watermark: Any = Field(None, description="`true` is refused: there are no watermarks.")


class DashScopeSubmit(BaseModel):
    """The body of a submit."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(examples=["wan2.2-t2v-plus"])
    input: DashScopeInput
    parameters: DashScopeParameters | None = None


class DashScopeOutput(_Shape):
    """How a task stands. Times are UTC, `YYYY-MM-DD HH:MM:SS.mmm`."""

    task_id: str
    task_status: TaskStatusWord
    submit_time: str | None = None
    scheduled_time: str | None = None
    end_time: str | None = None
    video_url: str | None = Field(None, description="Signed: fetch it without a key, for a day.")
    orig_prompt: str | None = None
    actual_prompt: str | None = Field(None, description="What the model read.")
    code: str | None = Field(None, description="Of a failure.")
    message: str | None = None
    progress: float | None = Field(None, description="0 to 1; not of DashScope.")
    queue_position: int | None = Field(None, description="0 = next; not of DashScope.")


class DashScopeUsage(_Shape):
    """What was delivered; two names for each thing, as models of the service differ."""

    video_count: int
    video_duration: float
    video_ratio: str = Field(examples=["1280*720"])
    duration: float
    size: str
    SR: int = Field(description="Lines of the resolution tier.", examples=[720])


class DashScopeTask(_Shape):
    """The answer about one task; `usage` only of one that succeeded."""

    request_id: str
    output: DashScopeOutput
    usage: DashScopeUsage | None = None


class DashScopeRow(_Shape):
    """One task of the list. Instants are Unix milliseconds."""

    task_id: str
    status: TaskStatusWord
    task_status: TaskStatusWord
    model_name: str
    gmt_create: int
    start_time: int | None
    end_time: int | None


class DashScopeList(_Shape):
    """A page of the newest 10,000 tasks asked for; `tasks` and `data` are the same rows."""

    request_id: str
    total: int
    page_no: int
    page_size: int
    total_page: int
    data: list[DashScopeRow]
    tasks: list[DashScopeRow]
