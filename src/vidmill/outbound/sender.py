"""One attempt to deliver a webhook, bounded whatever the receiver does.

The few lines of HTTP are our own: a general client reads interim answers and header lines for as
long as they come, and one receiver that sends nothing else would take a whole core of the server.
"""

import asyncio
import email.utils
import functools
import re
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx2

import vidmill
from vidmill.domain.webhook import Reply
from vidmill.outbound import signing
from vidmill.outbound.guard import Guard, Target, UrlRefused

DEADLINE_S = 15.0
"""From the look-up of the name to the last header of the answer."""

CONNECT_S = 5.0
ADDRESSES_TRIED = 3
HEAD_MAX_BYTES = 16 * 1024
HEADS_MAX = 4
"""Interim answers (1xx) before the real one."""

BODY_MAX_BYTES = 64 * 1024
BODY_S = 1.0
"""The status decides. The rest is only taken so that an honest receiver is not cut off."""

PORTS = {"https": 443, "http": 80}

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r\n")


class _NoAnswer(Exception):
    """Something came back that is no answer, or nothing; the message says what happened."""


class Sender:
    """Sends from any event loop. Follows no redirect, keeps no connection, uses no proxy."""

    def __init__(
        self,
        guard: Guard,
        *,
        clock: Callable[[], float],
        deadline_s: float = DEADLINE_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take *clock* (Unix seconds) for timestamps; *tls* None = the system's authorities."""
        self._guard = guard
        self._clock = clock
        self._deadline_s = deadline_s
        self._tls = tls

    async def send(self, url: str, *, message_id: str, body: bytes, keys: Sequence[bytes]) -> Reply:
        """Post *body* to *url*, signed with each of *keys*; never raises for what comes of it."""
        began = time.monotonic()
        status, retry_after_s, error = None, None, None
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                target = await self._guard.target(url)
                timestamp = int(self._clock())
                headers = signing.headers(
                    keys, message_id=message_id, timestamp=timestamp, body=body
                )
                request = _request(target.url, headers, body)
                status, said = await self._post(target, request, deadline)
            retry_after_s = self._retry_after_s(said)
        except TimeoutError:
            error = f"no answer within {self._deadline_s:g} s"
        except UrlRefused as refused:
            error = f"not called: {refused}"
        except (_NoAnswer, OSError) as failure:
            error = _told(failure)
        took_s = time.monotonic() - began
        return Reply(took_s=took_s, status=status, error=error, retry_after_s=retry_after_s)

    async def _post(
        self, target: Target, request: bytes, deadline: asyncio.Timeout
    ) -> tuple[int, str]:
        """Return the status and `Retry-After` of whoever takes the connection first."""
        reader, writer = await self._connect(target)
        try:
            writer.write(request)
            await writer.drain()
            status, headers = await _answer(reader)
            deadline.reschedule(None)
            await _rest(reader, headers)
        finally:
            writer.transport.abort()
        return status, headers.get("retry-after", "")

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        is_tls = target.url.scheme == "https"
        for number, address in enumerate(target.addresses[:ADDRESSES_TRIED], start=1):
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(
                        address,
                        target.url.port or PORTS[target.url.scheme],
                        limit=HEAD_MAX_BYTES,
                        ssl=(self._tls or _system_tls()) if is_tls else None,
                        server_hostname=target.url.raw_host.decode() if is_tls else None,
                    )
            except ssl.SSLError:
                raise
            except OSError as error:  # a time-out is one, too
                if number == min(len(target.addresses), ADDRESSES_TRIED):
                    raise _NoAnswer("no connection") from error
        raise AssertionError("a target has an address")

    def _retry_after_s(self, text: str) -> float | None:
        """Return what `Retry-After` says, in seconds from now; None = nothing that makes sense."""
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            at = email.utils.parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return None
        return max(0.0, at - self._clock())


def _request(url: httpx2.URL, headers: dict[str, str], body: bytes) -> bytes:
    """Return the bytes of the request; the URL holds none that could end a line."""
    lines = {
        "host": url.netloc.decode(),
        "content-type": "application/json",
        "content-length": str(len(body)),
        "user-agent": f"Vidmill/{vidmill.__version__}",
        "accept": "*/*",
        "connection": "close",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return b"POST %s HTTP/1.1\r\n%s\r\n%s" % (url.raw_path, head.encode(), body)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return the status and the headers, by lower-case name, of the first final answer."""
    for _ in range(HEADS_MAX):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            said = "the answer is not HTTP, or ends too early" if error.partial else "hung up"
            raise _NoAnswer(said) from error
        except asyncio.LimitOverrunError as error:
            raise _NoAnswer(f"more than {HEAD_MAX_BYTES} bytes of headers") from error
        match = _STATUS_LINE.match(head)
        if match is None:
            raise _NoAnswer("the answer is not HTTP, or ends too early")
        if match[1] >= b"200":
            lines = head.decode("latin-1").split("\r\n")[1:]
            pairs = (line.partition(":") for line in lines)
            return int(match[1]), {name.strip().lower(): text.strip() for name, _, text in pairs}
    raise _NoAnswer("only interim answers")


async def _rest(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    """Take the body, as much of it as is worth it."""
    length = headers.get("content-length", "")
    is_known = length.isascii() and length.isdigit() and len(length) < len(str(BODY_MAX_BYTES)) + 1
    left = min(int(length), BODY_MAX_BYTES) if is_known else BODY_MAX_BYTES
    with suppress(OSError):
        async with asyncio.timeout(BODY_S):
            while left > 0 and (chunk := await reader.read(left)):
                left -= len(chunk)


@functools.cache
def _system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading all authorities takes 30 ms


def _told(failure: Exception) -> str:
    """Return what went wrong, in words that tell the receiver's owner what to mend."""
    if isinstance(failure, _NoAnswer):
        return str(failure)
    if isinstance(failure, ssl.SSLError):
        return f"TLS failed: {failure.reason or 'the certificate is not trusted'}"
    return "the connection broke"
