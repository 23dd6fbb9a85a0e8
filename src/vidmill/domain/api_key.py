"""How an API key looks: `vm_live_`, 43 random characters, and 6 that check the rest.

The check lets a mistyped key be refused without the database, and a scanner of code and logs tell a
leaked key from other text. Keys without the prefix, from older releases, are looked up as they are.
"""

import secrets
import string
import zlib

PREFIX = "vm_live_"
HINT_CHARS = 12
"""Of a key's beginning, kept so that its owner can tell his keys apart: 24 of 256 random bits."""

_CHECK_CHARS = 6
_KEY_CHARS = len(PREFIX) + 43 + _CHECK_CHARS
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def new_key() -> str:
    """Return a key that nobody can guess; only its hash is ever stored."""
    rest = f"{PREFIX}{secrets.token_urlsafe(32)}"
    return rest + _check(rest)


def is_mistyped(key: str) -> bool:
    """Whether *key* looks like one of ours and cannot be one."""
    if not key.startswith(PREFIX):
        return False
    rest, check = key[:-_CHECK_CHARS], key[-_CHECK_CHARS:]
    return len(key) != _KEY_CHARS or check != _check(rest)


def hint_of(key: str) -> str:
    return key[:HINT_CHARS]


def public_name(key_id: int) -> str:
    """Return what a key is called on the wire."""
    return f"key_{key_id}"


def id_named(name: str) -> int | None:
    """Return the id in `key_12` or `12`; None if it is no name of a key."""
    number = name.removeprefix("key_")
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(_ID_MAX))
    return int(number) if is_number and int(number) <= _ID_MAX else None


_ID_MAX = 2**31 - 1
"""Of PostgreSQL's INTEGER; it refuses to compare one with a larger number."""


def _check(rest: str) -> str:
    number, digits = zlib.crc32(rest.encode()), ""
    for _ in range(_CHECK_CHARS):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
