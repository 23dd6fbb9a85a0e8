"""What has been measured so far: one JSON file, replaced after each piece, so that a run goes on.

A file belongs to one device, one set of versions and one scale; figures of others never mix.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

Status = Literal["begun", "done", "skipped", "failed"]

_TRIES_MAX = 2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one piece.

    Attributes:
        status: `begun` that never ended: the process died in it, or was stopped at a time limit.
        reason: Why it was skipped or failed.
    """

    status: Status
    date: str = ""
    tries: int = 1
    wall_s: float = 0.0
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)


class StateMismatch(Exception):
    """The file holds figures of another device, other versions or the other scale, or none."""


class State:
    """The outcomes of pieces by name, on disk at *path*."""

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self.path = path
        self.about = dict(about)
        self.outcomes: dict[str, Outcome] = {}

    @classmethod
    def open(cls, path: Path, about: Mapping[str, str]) -> Self:
        """Return what *path* holds, or an empty state if there is no such file.

        Raises:
            StateMismatch: The file is about something else than *about*.
        """
        state = cls(path, about)
        if path.is_file():
            held = cls.read(path)
            if differing := {k for k in {*about, *held.about} if about.get(k) != held.about.get(k)}:
                what = "; ".join(
                    f"{key} {held.about.get(key)!r}, here {about.get(key)!r}"
                    for key in sorted(differing)
                )
                raise StateMismatch(f"{path} has figures of {what}; give another --state")
            state.outcomes = held.outcomes
        return state

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what *path* holds, whatever it is about.

        Raises:
            StateMismatch: It is not a file that a run wrote.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            state = cls(path, data["about"])
            state.outcomes = {name: Outcome(**entry) for name, entry in data["outcomes"].items()}
        except (ValueError, LookupError, TypeError) as error:
            raise StateMismatch(f"{path} is no file of results: {error!r}") from error
        return state

    def is_settled(self, name: str) -> bool:
        """Whether *name* needs no further run: it ended, or twice it did not."""
        outcome = self.outcomes.get(name)
        return outcome is not None and (outcome.status != "begun" or outcome.tries >= _TRIES_MAX)

    def reopen(self, name: str) -> None:
        """Have *name* run again unless it is done."""
        if name in self.outcomes and self.outcomes[name].status != "done":
            del self.outcomes[name]

    def begin(self, name: str, *, date: str) -> None:
        """Note that *name* runs now, so that a process that dies in it leaves a trace."""
        before = self.outcomes.get(name)
        tries = before.tries + 1 if before is not None and before.status == "begun" else 1
        self._put(name, Outcome(status="begun", date=date, tries=tries))

    def end(self, name: str, outcome: Outcome) -> None:
        """Note what became of *name*, which was begun."""
        begun = self.outcomes[name]
        self._put(name, replace(outcome, date=begun.date, tries=begun.tries))

    def _put(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.new")
        outcomes = {name: asdict(outcome) for name, outcome in self.outcomes.items()}
        fresh.write_text(json.dumps({"about": self.about, "outcomes": outcomes}, indent=1))
        os.replace(fresh, self.path)  # noqa: PTH105  # atomic: never a half-written file
