"""How much this process has to do, and where it says no."""

from collections.abc import Callable

from starlette.types import Scope

from vidmill.domain.errors import ServiceUnavailable

ALWAYS_ANSWERED = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by those who decide whether this process lives: most wanted when it is full."""


class Load:
    """Counts the requests that are being worked on. For the event loop only."""

    def __init__(self, *, requests_max: int) -> None:
        self._requests_max = requests_max
        self.in_flight = 0
        self.num_refused = 0

    def enter(self, scope: Scope) -> None:
        """Count the request of *scope* until `leave`.

        Raises:
            ServiceUnavailable: As many as may be are being worked on.
        """
        if self.in_flight >= self._requests_max and scope["path"] not in ALWAYS_ANSWERED:
            self.num_refused += 1
            raise ServiceUnavailable(
                f"{self.in_flight} requests are being worked on here, and {self._requests_max} is"
                " the limit; try again in a few seconds"
            )
        self.in_flight += 1
        scope["leave_load"] = self._leave

    def _leave(self) -> None:
        self.in_flight -= 1


def leave(scope: Scope) -> bool:
    """Count the request of *scope* no longer: it is over, or only watches (see `following`).

    Returns:
        Whether it was counted until now.
    """
    leave_load: Callable[[], None] | None = scope.pop("leave_load", None)
    if leave_load:
        leave_load()
    return leave_load is not None
