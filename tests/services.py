"""The servers that some tests need. In CI a missing one is a failure, elsewhere a skip."""

import os
import socket
from urllib.parse import urlsplit

import pytest

DEFAULTS = {
    "POSTGRES": "postgresql://postgres@127.0.0.1:5432/postgres",
    "REDIS": "redis://127.0.0.1:6379",
    "AMQP": "amqp://guest:guest@127.0.0.1:5672//",
}
"""What `VIDMILL_TEST_<NAME>_URL` overrides. PostgreSQL's user must be allowed to make databases."""


def require(name: str) -> str:
    """Return the URL of a server that answers; fail in CI, skip elsewhere, if there is none."""
    url = os.environ.get(f"VIDMILL_TEST_{name}_URL", DEFAULTS[name])
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5).close()
    except OSError as error:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"no server at {parts.hostname}:{parts.port} ({error}); set VIDMILL_TEST_{name}_URL")
    return url


def require_postgres() -> str:
    return require("POSTGRES")


def require_redis() -> str:
    return require("REDIS")


def require_rabbitmq() -> str:
    return require("AMQP")
