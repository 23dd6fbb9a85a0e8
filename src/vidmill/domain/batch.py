"""A batch: many orders checked together, and queued together once their owner says so."""

from collections.abc import Mapping
from enum import StrEnum


class BatchState(StrEnum):
    """What the owner of a batch wants, and whether it is so already."""

    CHECKED = "checked"  # priced; nothing is queued or held
    PROCESSING = "processing"
    PAUSED = "paused"  # what runs goes on to its end, what waits stays waiting
    CANCELLING = "cancelling"
    COMPLETED = "completed"  # every task is over, however it ended
    CANCELLED = "cancelled"


class RowState(StrEnum):
    """Where one row of a batch stands; a trigger copies how its task ended."""

    INVALID = "invalid"
    READY = "ready"
    ACTIVE = "active"  # its task is under way
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = frozenset({BatchState.PROCESSING, BatchState.PAUSED, BatchState.CANCELLING})
"""States of a batch that has tasks under way, or had until a moment ago."""

OVER: Mapping[BatchState, BatchState] = {
    BatchState.PROCESSING: BatchState.COMPLETED,
    BatchState.PAUSED: BatchState.COMPLETED,
    BatchState.CANCELLING: BatchState.CANCELLED,
}
"""What a batch becomes once its last task is over."""
