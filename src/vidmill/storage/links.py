"""Links to local files that work for a while, for whoever holds them, and for one file only."""

import hashlib
import hmac

from vidmill.domain.errors import LinkInvalid, ResultExpired

_MAX_DIGITS = 12
"""Longest expiry read: `int` of a long string takes quadratic time."""


def sign(key: str, *, expires_at: int, secret: bytes) -> tuple[int, str]:
    """Return `(expires_at, signature)`, the two things a link to *key* carries.

    From *expires_at* on, in Unix seconds, the link is dead. *secret* is at least 32 random bytes,
    the same in every process.
    """
    message = f"vidmill-file-v1\n{expires_at}\n{key}".encode("utf-8", "surrogatepass")
    return expires_at, hmac.new(secret, message, hashlib.sha256).hexdigest()


def verify(key: str, expires: str, signature: str, *, now: float, secret: bytes) -> None:
    """Return if the link to *key* is genuine and alive; *expires* is still the URL's text.

    Raises:
        LinkInvalid: It was not made here, or was changed. Says nothing about whether a file exists.
        ResultExpired: It was made here, and is too old.
    """
    is_number = expires.isascii() and expires.isdigit() and len(expires) <= _MAX_DIGITS
    expires_at, expected = sign(key, expires_at=int(expires) if is_number else 0, secret=secret)
    is_ours = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass"))
    if not (is_number and is_ours and expires == str(expires_at)):
        raise LinkInvalid("the link is damaged or was not made here; ask for the result again")
    if now >= expires_at:
        raise ResultExpired("the link has expired; ask for the result again to get a new one")
