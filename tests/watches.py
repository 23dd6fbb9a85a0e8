"""Watches for tests: what an engine reported, and a cancel that comes at an exact moment."""

from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase

Report = tuple[Phase, int, int]


class RecordingWatch:
    """Keeps every report; cancels at the check after *cancel_at_report* of *cancel_in* phase.

    Args:
        cancel_in: Phase in which a cancel is asked for; None = never.
        cancel_at_report: Which report of that phase (1-based) raises the flag.
    """

    def __init__(self, *, cancel_in: Phase | None = None, cancel_at_report: int = 1) -> None:
        self.reports: list[Report] = []
        self.checks = 0
        self.is_cancel_requested = False
        self._cancel_in = cancel_in
        self._cancel_at_report = cancel_at_report

    def report(self, phase: Phase, done: int, total: int) -> None:
        self.reports.append((phase, done, total))
        if phase is self._cancel_in and len(self.of(phase)) == self._cancel_at_report:
            self.is_cancel_requested = True

    def check(self) -> None:
        self.checks += 1
        if self.is_cancel_requested:
            raise JobCancelled("the test asked for it")

    def of(self, phase: Phase) -> list[Report]:
        """Return the reports of *phase*, in order."""
        return [report for report in self.reports if report[0] is phase]


class CancelledOnceOrdered(RecordingWatch):
    """Cancels at the second check: a remote engine has placed its order then."""

    def check(self) -> None:
        self.is_cancel_requested = self.checks > 0
        super().check()
