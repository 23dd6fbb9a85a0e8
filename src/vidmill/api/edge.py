"""The outermost layer: request ids, the limit on bodies, and no exception beyond this point."""

import asyncio
import random
import re
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vidmill.api.errors import Asked, ErrorStyle
from vidmill.api.load import Load, leave
from vidmill.api.metrics import Meter
from vidmill.domain.errors import BodyTooLarge, BodyTooSlow, InternalError, VidmillError
from vidmill.telemetry import get_logger

log = get_logger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""What a caller's X-Request-ID may look like: it goes into logs and headers as it is."""


BODY_BYTES_PER_S = 1024
"""How fast a body must come in the long run: whoever drips one holds a place among the requests."""

Exact = tuple[str, str]
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class Edge:
    """ASGI middleware.

    A body is never read further than *body_max_bytes*, or its entry in *body_limits*, declared or
    chunked, nor waited for longer than *body_wait_s* and a second for each KiB of it. *exact*
    holds the endpoints of paths without parameters: a router would take a third of the time of a
    poll. Requests beyond what *load* bears are refused before their body is read.
    *style_of* says how errors look on a path.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_max_bytes: int,
        body_limits: Mapping[Exact, int],
        body_wait_s: float,
        exact: Mapping[Exact, Endpoint],
        style_of: Callable[[str], ErrorStyle],
        load: Load,
        meter: Meter,
    ) -> None:
        self._app = app
        self._exact = exact
        self._load = load
        self._meter = meter
        self._body_max_bytes = body_max_bytes
        self._body_limits = body_limits
        self._body_wait_s = body_wait_s
        self._style_of = style_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["header_map"] = headers = dict(scope["headers"])
        scope["request_id"] = request_id = _request_id(headers)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        named = _NamingSend(send, scope, request_id)
        began = time.perf_counter()
        try:
            self._load.enter(scope)
            await self._serve(scope, receive, named)
        except ClientDisconnect:
            """Nobody is there any more to be told anything."""
        except Exception as error:
            if named.has_started:
                raise
            answer = self._failure(error, scope)
            await answer(scope, receive, named)
        finally:
            self._count(scope, named.status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count the request; what left the load before its end has only watched since."""
        route = self._route(scope)
        is_timed = leave(scope)
        self._meter.count_request(scope["method"], route, status, seconds if is_timed else None)

    def _route(self, scope: Scope) -> str:
        if (scope["method"], scope["path"]) in self._exact:
            return str(scope["path"])
        return getattr(scope.get("route"), "path", "other")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = scope["header_map"].get(b"content-length", b"")
        most = self._body_limits.get((scope["method"], scope["path"]), self._body_max_bytes)
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        bounded = _bounded(scope, receive, most, wait_s=self._body_wait_s)
        exact = self._exact.get((scope["method"], scope["path"]))
        if exact is None:
            await self._app(scope, bounded, send)
        else:
            answer = await exact(Request(scope, bounded, send))
            await answer(scope, bounded, send)

    def _failure(self, error: Exception, scope: Scope) -> Response:
        """Return the answer to a request that ended in *error*."""
        style, asked = self._style_of(scope["path"]), Asked.of(scope)
        if isinstance(error, VidmillError):
            # The server skips a declared rest; where nobody said how much would come, it hangs up.
            headers = {"Connection": "close"} if "is_endless" in scope else {}
            return style.response(error, asked, headers)
        # Neither the message nor local values are logged: they may hold prompts and keys.
        log.error(
            "request_failed",
            method=scope["method"],
            path=scope["path"],
            error=type(error).__name__,
            trace="".join(traceback.format_tb(error.__traceback__)),
        )
        mishap = InternalError("this is our mistake; it was logged under the request id")
        return style.response(mishap, asked)


def _bounded(scope: Scope, receive: Receive, most: int, *, wait_s: float) -> Receive:
    """Return *receive* that gives up on a body beyond *most* bytes, or on one that does not come.

    Only the waiting counts, not what is done between two pieces.
    """
    left, patience_s, is_whole = most, wait_s, False
    clock = asyncio.get_running_loop().time

    async def receive_some() -> Message:
        nonlocal left, patience_s, is_whole
        if is_whole:  # what is waited for now is that the other side hangs up
            return await receive()
        began = clock()
        try:
            async with asyncio.timeout(patience_s):
                message = await receive()
        except TimeoutError:
            scope["is_endless"] = True
            raise _too_slow(wait_s) from None
        size = len(message.get("body", b""))
        left -= size
        patience_s += size / BODY_BYTES_PER_S - (clock() - began)
        is_whole = not message.get("more_body", False)
        if left < 0:
            scope["is_endless"] = True
            raise _too_large(most)
        return message

    return receive_some


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {most} bytes; a request needs far less")


def _too_slow(wait_s: float) -> BodyTooSlow:
    return BodyTooSlow(
        f"the body did not come within {wait_s:g} s and a second for each KiB"
        " (VIDMILL_BODY_WAIT_S); send it again, all at once"
    )


class _NamingSend:
    """Sends an answer under the request's id, and knows whether it has begun.

    What a guard put into the scope's `answer_headers` goes out with it, whatever it is.
    """

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._scope = scope
        self._header = (b"x-request-id", request_id.encode())
        self.status = 0

    @property
    def has_started(self) -> bool:
        return self.status > 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            more = self._scope.get("answer_headers", ())
            message["headers"] = [*message.get("headers", ()), self._header, *more]
        await self._send(message)


def header(request: Request, name: bytes) -> str | None:
    """Return a request's header by its lower-case name; quicker than `request.headers`."""
    value: bytes | None = request.scope["header_map"].get(name)
    return None if value is None else value.decode("latin-1")


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else f"req_{random.getrandbits(96):024x}"
