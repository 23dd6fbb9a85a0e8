"""Batches on the server, as typed values."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from vidmill.client._models import Failure, Interval, Result, Wire

OVER = frozenset({"completed", "cancelled"})
"""States of a batch in which no task of it is under way."""

Accept = Literal["ready_rows_only", "all_or_nothing"]
"""What a confirmation queues: the rows that are right, or nothing unless all are."""

RowFilter = Literal["invalid", "ready", "active", "completed", "failed", "cancelled"]
"""Rows to list; `active` are queued or processing."""


class BatchCounts(Wire):
    """Rows by where they stand."""

    total: int = 0
    invalid: int = 0
    ready: int = 0
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class BatchPrice(Wire):
    """Credits of all rows that are right."""

    credits: int = 0
    held: int = 0
    captured: int = 0
    released: int = 0


class Batch(Wire):
    """How a batch stands.

    Attributes:
        state: `checked` (nothing is queued yet), `processing`, `paused`, `cancelling`,
            `completed` or `cancelled`.
        source: How the rows were read: format, encoding, whether that was a guess, delimiter.
        eta_finish: When its last task is done; None unless it is being processed.
        expires_at: Forgotten then, unless confirmed.
    """

    batch_id: str
    name: str | None = None
    state: str
    source: dict[str, Any] = Field(default_factory=dict)
    counts: BatchCounts = BatchCounts()
    price: BatchPrice = BatchPrice()
    eta_finish: Interval | None = None
    webhook_url: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    confirmed_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        return self.state in OVER


class RowProblem(Wire):
    """What is wrong with a field of a row; `field` is empty where the row as a whole is meant."""

    field: str = ""
    pointer: str = "#"
    code: str
    message: str
    limit: int | float | str | None = None


class BatchRow(Wire):
    """One row.

    Attributes:
        line: In the file, as an editor counts; of rows in JSON the number, from 1.
        task_id: None until it is queued, and once it was erased.
    """

    line: int
    custom_id: str | None = None
    status: str
    task_id: str | None = None
    prompt: str | None = None
    price_credits: int = 0
    progress: float = 0.0
    error: Failure | None = None
    problems: list[RowProblem] = Field(default_factory=list)


class BatchVerdict(Batch):
    """A batch just checked: its first wrong rows, and the first that are right."""

    problems: list[BatchRow] = Field(default_factory=list)
    samples: list[BatchRow] = Field(default_factory=list)


class BatchResult(Wire):
    """What became of one row."""

    line: int
    custom_id: str | None = None
    task_id: str | None = None
    status: str
    result: Result | None = None
    error: Failure | None = None
    problems: list[RowProblem] = Field(default_factory=list)


class BatchPage(Wire):
    data: list[Batch]
    next_cursor: str | None = None


class BatchRowPage(Wire):
    data: list[BatchRow]
    next_cursor: str | None = None
