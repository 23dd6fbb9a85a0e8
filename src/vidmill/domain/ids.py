"""Names given to things."""


def task_id(unix_ms: int, random_bits: int) -> str:
    """Return `t2v_` and a UUIDv7 in hex (RFC 9562 §5.7): sorts by time, guesses by nobody.

    Args:
        unix_ms: Milliseconds since the epoch, 48 bits used.
        random_bits: 74 random bits.
    """
    rand_a, rand_b = (random_bits >> 62) & 0xFFF, random_bits & (2**62 - 1)
    value = (unix_ms & (2**48 - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"t2v_{value:032x}"
