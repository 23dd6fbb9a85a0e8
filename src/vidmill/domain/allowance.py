"""What a plan allows, and how much of it is used."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one limit stands.

    Attributes:
        name: Stable and public.
        used: None = it cannot be known now.
        window_s: It begins anew after so long; None = it bounds what there is at one time.
        resets_at: When that is next, Unix seconds.
    """

    name: str
    limit: int
    used: int | None
    window_s: int | None = None
    resets_at: float | None = None

    @property
    def remaining(self) -> int | None:
        return None if self.used is None else max(0, self.limit - self.used)
