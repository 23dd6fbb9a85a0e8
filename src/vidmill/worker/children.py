"""The supervisor's side of one child: start it, talk to it, stop it, start it again."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vidmill.telemetry import get_logger
from vidmill.worker.channel import Channel, StopWord, pair
from vidmill.worker.loop import EventLoop, Timer
from vidmill.worker.proc import end_strays, kill_group

log = get_logger(__name__)

RESTART_S = 0.5
"""First wait after a child died by itself; doubles up to the cap, until one says `ready`."""
RESTART_CAP_S = 30.0

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Handlers:
    """What the supervisor does about one child.

    Attributes:
        start: Called after each start.
        late: It was not ready within the limit and is being killed; `exit` follows.
        message: Called with each message and the descriptor that came with it.
        exit: Called once after each death, with the exit status (`-9` = signal 9).
    """

    start: Callable[[], None]
    late: Callable[[], None]
    message: Callable[[Message, int | None], None]
    exit: Callable[[int], None]


class Child:
    """One slot in the process tree, always the same work, a new process after each death.

    Args:
        module: What `python -m` runs.
        order: The first message to each new process.
        ready_limit_s: A process that has not said `ready` after this time is killed.
        known: Pids of all children of this process; strays are told by not being in it.
    """

    def __init__(
        self,
        loop: EventLoop,
        *,
        module: str,
        order: Mapping[str, Any],
        ready_limit_s: float,
        known: set[int],
        handlers: Handlers,
    ) -> None:
        self._loop = loop
        self._module = module
        self._order = order
        self._ready_limit_s = ready_limit_s
        self._known = known
        self._handlers = handlers
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths_in_a_row = 0
        self._is_killed_by_us = False
        self._restart: Timer | None = None
        self._patience: Timer | None = None
        self._channel: Channel
        self._stop: StopWord
        self._pidfd: int
        self.is_ready = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process. Call it from a thread that lives as long as the supervisor.

        The kernel's parent-death signal fires when the starting *thread* ends.
        """
        self._channel, theirs = pair()
        self._stop = StopWord.create()
        fds = (theirs.fileno(), self._stop.descriptor)
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(os.getpid()), *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=fds,
            start_new_session=True,
        )
        theirs.close()
        self._known.add(self._process.pid)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._is_killed_by_us = False
        self._loop.watch(self._pidfd, self._on_exit)
        self._loop.watch(self._channel.fileno(), self._on_readable)
        self._patience = self._loop.after(self._ready_limit_s, self._on_late)
        self.send(self._order)
        self._handlers.start()

    def send(self, message: Mapping[str, Any], *, fd: int | None = None) -> bool:
        """Send; False: the process just died, the message is lost, and `exit` follows."""
        try:
            self._channel.send(message, fd=fd)
        except (BrokenPipeError, ConnectionResetError):
            log.warning("child_gone", module=self._module)
            self.is_ready = False
            return False
        return True

    def ask_stop(self, run: int) -> None:
        self._stop.ask(run)

    def kill(self) -> None:
        """SIGKILL the process and its group; `exit` follows from the loop."""
        if self._process:
            # It may live for some moments more, and what it is sent in them would be lost.
            self._is_killed_by_us, self.is_ready = True, False
            kill_group(self._process.pid)

    def close(self) -> None:
        """End the process for good, with all it started; no handler is called any more."""
        if self._restart:
            self._restart.cancel()
        if self._process:
            self.kill()
            self._bury(self._process)

    def _on_readable(self) -> None:
        try:
            message, fd = self._channel.receive(is_waiting=False)
        except BlockingIOError:
            return
        except EOFError:
            self._loop.forget(self._channel.fileno())
            return  # the pidfd tells the rest
        if message["say"] == "ready":
            self._on_ready()
        if message.get("is_last") or message.get("is_resting"):
            self.is_ready = False  # it ends itself now, or says `ready` again in its own time
        self._handlers.message(message, fd)

    def _on_ready(self) -> None:
        self.is_ready, self._deaths_in_a_row = True, 0
        if self._patience:
            self._patience.cancel()

    def _on_late(self) -> None:
        """Kill what hangs. It counts as a death of its own, so that the back-off applies."""
        assert self._process is not None
        log.error("child_late", module=self._module, limit_s=self._ready_limit_s)
        self._handlers.late()
        kill_group(self._process.pid)

    def _on_exit(self) -> None:
        assert self._process is not None
        process, was_killed = self._process, self._is_killed_by_us
        self.is_ready = False  # its last words make room for a job, but not here
        self._hear_last_words()
        status = self._bury(process)
        delay_s = 0.0 if was_killed else self._next_delay_s()
        log.warning("child_ended", module=self._module, pid=process.pid, status=status)
        self._restart = self._loop.after(delay_s, self.start)
        self._handlers.exit(status)

    def _hear_last_words(self) -> None:
        """Take what the process sent before it died: a finished clip must not be lost with it."""
        while True:
            try:
                message, fd = self._channel.receive(is_waiting=False)
            except (EOFError, BlockingIOError):
                return
            self._handlers.message(message, fd)

    def _bury(self, process: subprocess.Popen[bytes]) -> int:
        if self._patience:
            self._patience.cancel()
        kill_group(process.pid)  # members that outlived it; as a zombie it still owns the number
        status = process.wait()
        self._known.discard(process.pid)
        strays = end_strays(self._known)
        if strays:
            log.warning("strays_ended", module=self._module, count=strays)
        for fileno in (self._channel.fileno(), self._pidfd):
            self._loop.forget(fileno)
        self._channel.close()
        self._stop.close()
        os.close(self._pidfd)
        self._process, self.is_ready = None, False
        return status

    def _next_delay_s(self) -> float:
        self._deaths_in_a_row += 1
        return min(RESTART_CAP_S, RESTART_S * 2.0 ** (self._deaths_in_a_row - 1))
