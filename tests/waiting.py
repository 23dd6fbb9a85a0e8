"""Waiting for real processes: short polls with a deadline, never a bare sleep."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, timeout_s: float, step_s: float = 0.01) -> bool:
    """Poll *condition* for at most *timeout_s*; return whether it came true."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(step_s)
    return True
