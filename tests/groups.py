"""A ranked engine in this process, with the processes of its other ranks."""

from pathlib import Path

from vidmill.engines.ranks import RankedEngine
from vidmill.profiles import load_profile
from vidmill.worker.mates import Mates


class Group:
    """Rank 0 on the first of *devices*, the model in *folder* on all of them.

    Args:
        layouts: Of rank 0 and of the others.

    Attributes:
        given_up: With what the render child would have ended itself.
    """

    def __init__(
        self,
        profile: Path,
        folder: Path,
        *,
        devices: tuple[str, ...],
        layouts: tuple[str, str] = ("auto", "auto"),
    ) -> None:
        self.given_up: list[Exception] = []
        order = {
            "profile": str(profile),
            "options": {"threads": 1, "layout": layouts[1]},
            "log_level": "error",
            "log_format": "json",
        }
        self.mates = Mates(devices, order=order, give_up=self.given_up.append, unwind_s=0.1)
        self.engine = RankedEngine(
            load_profile(str(profile)),
            str(folder),
            device=devices[0],
            threads=1,
            layout=layouts[0],
            mates=self.mates,
        )

    @property
    def mate(self) -> int:
        """The pid of rank 1."""
        return self.mates._processes[1].pid
