"""What clients did and were told, in the order of time, to be judged when all is over.

An operation is invoked and then ends `ok` (the answer is a promise), `fail` (it did certainly not
happen) or `info` (nobody knows: the connection died). The judging is done offline, on the list.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

End = Literal["ok", "fail", "info"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of a client. `value` is what the answer said; instants are Unix seconds."""

    client: str
    name: str
    invoked_at: float
    ended_at: float
    end: End
    value: Any

    @property
    def seconds(self) -> float:
        return self.ended_at - self.invoked_at


class History:
    """Everything that was asked of a system under test, by any number of threads."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Operation]:
        with self._lock:
            return iter(sorted(self._operations, key=lambda o: o.invoked_at))

    def note(self, client: str, name: str, invoked_at: float, *, end: End, value: Any) -> None:
        operation = Operation(
            client=client, name=name, invoked_at=invoked_at, ended_at=time.time(), end=end,
            value=value,
        )  # fmt: skip
        with self._lock:
            self._operations.append(operation)

    def of(self, name: str, end: End | None = None) -> list[Operation]:
        return [o for o in self if o.name == name and end in (None, o.end)]

    def acknowledged(self) -> list[str]:
        """Return the task of every submit that was answered with one."""
        return [o.value["task_id"] for o in self.of("submit", "ok")]

    def statuses(self, name: str) -> Counter[int | str]:
        """Return how often each answer came: HTTP statuses, or the error in words."""
        return Counter(o.value.get("status") or o.value["error"] for o in self.of(name))

    def write(self, path: Path) -> None:
        lines = [json.dumps(asdict(operation)) for operation in self]
        path.write_text("\n".join([*lines, ""]))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which *share* of *values* lie; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def jain(shares: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 = all equal, 1/n = one has all."""
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
