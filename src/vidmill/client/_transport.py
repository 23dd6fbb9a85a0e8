"""Where httpx2 meets the flows: how a request is put on the wire, and what its errors mean here."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx2

from vidmill.client._actions import Reply, Request
from vidmill.client._connection import Connection
from vidmill.client._errors import ConnectionLost, ServerUnreachable

USER_AGENT = "vidmill-python"

_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)


@contextlib.contextmanager
def mapped_errors(connection: Connection) -> Iterator[None]:
    """Turn httpx2's errors into ours."""
    try:
        yield
    except _NOT_SENT as error:
        raise ServerUnreachable(
            f"cannot reach {connection.url} (from {connection.url_source}): {error}; "
            "is it running? `vidmill up` starts a server on this machine"
        ) from error
    except httpx2.TransportError as error:
        name = type(error).__name__
        raise ConnectionLost(
            f"the connection to {connection.url} broke: {name} {error}".rstrip()
        ) from error


def options(connection: Connection, timeout_s: float) -> dict[str, Any]:
    """Return what httpx2's clients are made with."""
    return {
        "timeout": time_outs(timeout_s),
        "follow_redirects": True,
        "trust_env": not connection.is_local,
        "limits": httpx2.Limits(max_connections=100),
    }


def arguments(request: Request, connection: Connection) -> dict[str, Any]:
    """Return what httpx2's `build_request` needs."""
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT, **request.headers}
    if connection.api_key:
        headers["Authorization"] = f"Bearer {connection.api_key}"
    return {
        "method": request.method,
        "url": connection.url + request.path,
        "params": request.query or None,
        "headers": headers,
        "json": request.body,
        "content": request.content,
        "data": request.form,
        "files": request.files,
    }


def head_of(response: httpx2.Response) -> Reply:
    return Reply(status=response.status_code, headers=_headers(response))


def whole(response: httpx2.Response) -> Reply:
    """Return the answer with its body, which has been read."""
    return Reply(status=response.status_code, headers=_headers(response), body=response.content)


def time_outs(total_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(total_s, connect=min(total_s, 5.0))


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
