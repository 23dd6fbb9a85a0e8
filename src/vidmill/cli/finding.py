"""What `vidmill doctor` says of one thing that it looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check saw. `remedy` is empty when nothing need be done."""

    name: str
    state: State
    detail: str
    remedy: str = ""
