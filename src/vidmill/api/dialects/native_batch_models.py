"""What routes of batches answer, as schemas. A test holds the real answers against them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vidmill.api.dialects.native_models import Interval, Result, TaskError

BATCH_ID = "bat_019355f0c3a97c4e9d0b5a6f1e2d3c4b"

State = Literal["checked", "processing", "paused", "cancelling", "completed", "cancelled"]
RowStatus = Literal["invalid", "ready", "queued", "processing", "completed", "failed", "cancelled"]


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BatchSource(_Doc):
    """How the rows were read."""

    format: Literal["json", "csv", "jsonl"]
    encoding: str
    is_guess: bool = Field(description="Nobody said the encoding: look at the samples.")
    delimiter: str | None


class BatchCounts(_Doc):
    """Rows by where they stand."""

    total: int
    invalid: int
    ready: int = Field(description="Right, and not queued yet.")
    queued: int
    processing: int
    completed: int
    failed: int
    cancelled: int


class BatchPrice(_Doc):
    """Credits of all rows that are right."""

    credits: int = Field(description="If each is rendered; those found in the cache cost less.")
    held: int
    captured: int
    released: int


class BatchLinks(_Doc):
    """Where else to look, relative to the server."""

    self: str
    rows: str
    confirm: str
    pause: str
    resume: str
    cancel: str
    rerun_failed: str
    results: str
    archive: str


class Batch(_Doc):
    """How a batch stands."""

    batch_id: str = Field(examples=[BATCH_ID])
    name: str | None
    state: State
    source: BatchSource
    counts: BatchCounts
    price: BatchPrice
    eta_finish: Interval | None = Field(
        description="When its last task is done; null unless it is being processed."
    )
    webhook_url: str | None
    created_at: str
    expires_at: str | None = Field(description="Forgotten then, unless confirmed.")
    confirmed_at: str | None
    finished_at: str | None
    links: BatchLinks


class RowProblem(_Doc):
    """What is wrong with a field of a row."""

    field: str = Field(description="Its name; empty where the row as a whole is meant.")
    pointer: str
    code: str
    message: str
    limit: int | float | str | None = None


class BatchRow(_Doc):
    """One row."""

    line: int = Field(description="In the file, as an editor counts; in JSON the item's number.")
    custom_id: str | None
    status: RowStatus
    task_id: str | None = Field(description="null until it is queued, and once it was erased.")
    prompt: str | None = Field(description="As you sent it.")
    price_credits: int
    progress: float
    error: TaskError | None
    problems: list[RowProblem]


class BatchVerdict(Batch):
    """A batch just checked."""

    problems: list[BatchRow] = Field(description="The first wrong rows; `links.rows` has them all.")
    samples: list[BatchRow] = Field(description="The first rows that are right.")


class BatchPage(_Doc):
    """Part of the list."""

    data: list[Batch]
    has_more: bool
    next_cursor: str | None


class BatchRowPage(_Doc):
    """Part of the rows."""

    data: list[BatchRow]
    has_more: bool
    next_cursor: str | None


class BatchResult(_Doc):
    """One line of the results."""

    line: int
    custom_id: str | None
    task_id: str | None
    status: RowStatus
    result: Result | None
    error: TaskError | None
    problems: list[RowProblem]
