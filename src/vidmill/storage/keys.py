"""What a key may look like: the same for every store, so that a link can name no other file."""

import re

from vidmill.domain.errors import NotFound

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")


def check_key(key: str) -> str:
    """Return *key* when it is plain segments joined by `/`: no `..`, no hidden or absolute name.

    Raises:
        NotFound: It is not, so no file can have it.
    """
    if not _KEY.fullmatch(key):
        raise NotFound(f"no file is called {key!r}")
    return key
