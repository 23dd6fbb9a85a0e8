"""Fair turns at the write lock between processes.

SQLite's own busy handler sleeps up to 100 ms between tries, so that a process with a backlog
commits again and again while others wait: 738 ms at most, where turns took 8 (measured). Whoever
wants the write lock therefore first takes the turnstile, a `flock` beside the database, and lets go
of it once the write lock is his: the holder of the write lock cannot come back before the one who
waits had a turn. The kernel frees a dead process's turn. It is a courtesy, not a safeguard: a turn
that is not to be had in `PATIENCE_S` (its owner is frozen) is skipped, and SQLite's lock alone
decides.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 1.0
NAP_S = 0.0005
"""Between two tries; a commit takes 0.2 ms to several ms, so waiting costs at most one nap more."""


class Turnstile:
    """One per writer. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def pass_through(self, seize: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait in turn until *seize*, which never blocks, returns True; False after *timeout_s*."""
        began = time.monotonic()
        has_turn = _until(self.try_turn, deadline=began + min(PATIENCE_S, timeout_s))
        try:
            return _until(seize, deadline=began + timeout_s)
        finally:
            if has_turn:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def try_turn(self) -> bool:
        """Take the turn if nobody has it; `pass_through` or `close` gives it back."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)


def _until(condition: Callable[[], bool], *, deadline: float) -> bool:
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(NAP_S)
    return True
