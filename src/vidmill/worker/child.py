"""The child's side: what render child and finish child have in common."""

import signal
import socket
import sys
import time
from collections import defaultdict
from typing import Any

from vidmill.domain.errors import InternalError, JobCancelled, VidmillError
from vidmill.domain.job import Phase
from vidmill.worker.channel import Channel, StopWord
from vidmill.worker.proc import die_with


class Link:
    """The way back to the supervisor."""

    def __init__(self, channel: Channel, stop: StopWord) -> None:
        self.channel = channel
        self.stop = stop

    def say(self, word: str, *, fd: int | None = None, **fields: Any) -> None:
        self.channel.send({"say": word, **fields}, fd=fd)

    def hear(self) -> tuple[dict[str, Any], int | None]:
        """Wait for the next order. A supervisor that hung up ends this process."""
        try:
            return self.channel.receive()
        except EOFError:
            sys.exit(0)

    def say_failure(self, word: str, error: Exception, **fields: Any) -> None:
        known = error if isinstance(error, VidmillError) else InternalError(repr(error))
        self.say(word, code=known.code, message=str(known), **fields)


def connect(arguments: list[str]) -> Link:
    """Tie this process to the supervisor named by `parent-pid channel-fd stop-fd`.

    SIGINT is ignored: what Ctrl-C means is decided by the supervisor.
    """
    parent, channel_fd, stop_fd = map(int, arguments)
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = socket.socket(fileno=channel_fd)
    end.set_inheritable(False)
    return Link(Channel(end), StopWord(stop_fd))


class RunWatch:
    """The `Watch` of one run; also measures the seconds spent in each phase."""

    def __init__(self, link: Link, run: int) -> None:
        self._link = link
        self._run = run
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._phase: Phase | None = None
        self._since = time.monotonic()

    def report(self, phase: Phase, done: int, total: int) -> None:
        self._account(phase)
        self._link.channel.send_if_room(
            {"say": "progress", "run": self._run, "phase": phase, "done": done, "total": total}
        )

    def check(self) -> None:
        if self._link.stop.is_asked(self._run):
            raise JobCancelled("stopped on request")

    def timings_s(self) -> dict[str, float]:
        """Return seconds by phase so far."""
        self._account(self._phase)
        return {phase: round(seconds, 4) for phase, seconds in self._seconds.items()}

    def _account(self, phase: Phase | None) -> None:
        """Book the time since the last report on the phase that this report is about."""
        now = time.monotonic()
        if phase is not None:
            self._seconds[phase] += now - self._since
        self._phase, self._since = phase, now
