"""How the application is served: the one place that configures the server of `up` and `serve`."""

import sys
from typing import Any

import uvicorn

from vidmill.api.app import create_app
from vidmill.api.sockets import MESSAGE_MAX_BYTES
from vidmill.wiring import App

CLOSE_S = 5.0
"""How long open answers (event streams) may go on once the server is asked to stop."""

PING_S = 20.0
"""Between pings of a WebSocket, and how long its answer may take."""

BACKLOG = 2048
"""Connections that may wait to be accepted: a thousand clients that come at once."""


SWITCH_S = 0.0005
"""A thread back from the database waits so long for the busy event loop, not Python's 5 ms."""


def share_interpreter() -> None:
    """Let the threads of a process that only serves take turns more often; for its entry point."""
    sys.setswitchinterval(SWITCH_S)


def make_server(app: App, **changes: Any) -> uvicorn.Server:
    """Return the server of the API over *app*; *changes* are uvicorn's own settings."""
    config = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "backlog": BACKLOG,
        "timeout_graceful_shutdown": int(CLOSE_S),
        "ws_max_size": MESSAGE_MAX_BYTES,
        "ws_ping_interval": PING_S,
        "ws_ping_timeout": PING_S,
        "ws_per_message_deflate": False,  # 300 KiB a connection, and the news are a kilobyte
    }
    return uvicorn.Server(uvicorn.Config(create_app(app), **{**config, **changes}))
