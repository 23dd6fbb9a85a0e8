"""Names given to things."""

import re

RANDOM_BITS = 74
"""How many bits of a name nobody can guess: what a UUIDv7 has room for."""

_TASK = re.compile("(?:t2v_|video_)?([0-9a-f]{32})")


def task_id(unix_ms: int, random_bits: int) -> str:
    """Return `t2v_` and a UUIDv7 in hex (RFC 9562 §5.7): sorts by time, guesses by nobody.

    Args:
        unix_ms: Milliseconds since the epoch, 48 bits used.
        random_bits: `RANDOM_BITS` random bits.
    """
    rand_a, rand_b = (random_bits >> 62) & 0xFFF, random_bits & (2**62 - 1)
    value = (unix_ms & (2**48 - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"t2v_{value:032x}"


def canonical_task_id(name: str) -> str | None:
    """Return the `t2v_` id of what a dialect may call `video_...`, or by the digits alone.

    None: no task is ever called *name*.
    """
    match = _TASK.fullmatch(name)
    return f"t2v_{match[1]}" if match else None


def public_name(task_id: str, prefix: str) -> str:
    """Return a task's id under another *prefix*: `video` makes `t2v_0a...` `video_0a...`."""
    return f"{prefix}_{task_id.partition('_')[2]}"
