"""What a profile says of the server that renders for it, where that is not this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self


class Progress(StrEnum):
    """How finely an engine can tell how far a clip is."""

    STEP = "step"  # at every step of the model
    PERCENT = "percent"  # as often as its server is asked
    STATE = "state"  # waiting, drawing or done: no figure, and none is made up


class Cancel(StrEnum):
    """What an engine can do about a clip that nobody wants any more."""

    NOW = "now"  # it stops, within a second or so
    QUEUED = "queued"  # only before it is begun; then its server draws it to the end
    NO = "no"  # its server draws it to the end


@dataclass(frozen=True, kw_only=True)
class Remote:
    """How to speak to the server, and what it can do. The table `[remote]` of a profile.

    Attributes:
        dialect: How it wants to be spoken to; the engine knows which there are.
        url: Where its API begins, `http://gpu7:8000/v1`; empty = only `VIDMILL_REMOTE_URL` says.
        model: The model's name there; empty = the one it serves.
        omit: Names of fields that it does not take.
        extra: Fields that are always sent along.
        durations: Seconds it sells, ascending; empty = every length.
        frames_over: So many frames too many are dropped, from the end.
        frames_short: So many missing ones are filled in, by holding the last.
        poll_s: First and longest wait between two looks at a clip, seconds.
        patience_s: So long it may be out of reach, or too busy, before a run fails.
        busy_limit_s: So long a clip that was given up may keep it busy.
    """

    dialect: str
    progress: Progress
    cancel: Cancel
    url: str = ""
    model: str = ""
    omit: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)
    durations: tuple[int, ...] = ()
    frames_over: int = 0
    frames_short: int = 0
    poll_s: tuple[float, float] = (0.5, 5.0)
    patience_s: float = 60.0
    busy_limit_s: float = 1800.0

    @classmethod
    def from_toml(cls, data: Mapping[str, Any]) -> Self:
        """Build from a parsed TOML table.

        Raises:
            TypeError, ValueError, KeyError: A key is unknown, missing or wrong.
        """
        readers: dict[str, Callable[[Any], Any]] = {
            "progress": Progress,
            "cancel": Cancel,
            "omit": frozenset,
            "durations": tuple,
            "poll_s": _wait,
        }
        known = {each.name for each in fields(cls)}
        if strange := sorted(data.keys() - known):
            raise ValueError(
                f"[remote] has no key {strange[0]!r}; it has {', '.join(sorted(known))}"
            )
        return cls(**{name: readers.get(name, _same)(value) for name, value in data.items()})


def _same(value: Any) -> Any:
    return value


def _wait(pair: Any) -> tuple[float, float]:
    shortest, longest = pair
    if not 0 < shortest <= longest:
        raise ValueError(f"poll_s = {pair!r}: give the first wait and a longest that is no shorter")
    return float(shortest), float(longest)
