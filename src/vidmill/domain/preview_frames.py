"""Preview frames: pictures of a clip while it is still being drawn. When, and under which key."""

_SHARES = (0.25, 0.5, 0.75)


def preview_steps(num_steps: int) -> tuple[int, ...]:
    """Return after which steps (from 1) of a run a picture is taken; none after the last."""
    steps = sorted({round(num_steps * share) for share in _SHARES})
    return tuple(step for step in steps if 0 < step < num_steps)


def preview_key(prefix: str, step: int) -> str:
    """Return the picture's key in the blob store; *prefix* is that of the run's other files."""
    return f"{prefix}/step-{step}.jpg"
