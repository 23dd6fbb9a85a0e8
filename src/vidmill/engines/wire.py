"""The HTTP of remote engines: every call has limits in time and size, and tells what went wrong.

The server is the operator's own choice, so no address is refused. Its answers are bounded all the
same, its redirects never carry the key elsewhere, and the key is in no message.
"""

import contextlib
import functools
import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import httpx2

from vidmill.domain.errors import BadOutput, EngineFailed, ModelInvalid

CONNECT_S = 3.0
ASK_S = 8.0
"""With `CONNECT_S` it ends within VIDMILL_CANCEL_GRACE_S's 10 s, so that a cancel is still sent."""
SUBMIT_S = 30.0
FETCH_S = 600.0
"""Longest download of a whole clip."""

ANSWER_MAX_BYTES = 1 << 20
CLIP_MAX_BYTES = 512 << 20
_CHUNK_BYTES = 1 << 16
_MESSAGE_MAX_CHARS = 300

TOO_MANY_REQUESTS = 429
NOT_FOUND = 404
_SERVER_ERROR = 500
_REFUSED_KEY = frozenset({401, 403})

_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)


class NoAnswer(Exception):
    """The server is out of reach, or has no time. *is_sent*: it may have got the request.

    *brief* is for logs; *words* are the server's own, which may quote a prompt.
    """

    def __init__(self, brief: str, words: str = "", *, is_sent: bool, wait_s: float = 0.0) -> None:
        super().__init__(f"{brief} {words}".rstrip())
        self.brief = brief
        self.is_sent = is_sent
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer. `doc` is its JSON object, empty where it is none."""

    status: int
    doc: Mapping[str, Any]

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004  what HTTP calls successful


class Wire:
    """Calls one server. Nothing is tried twice here: its users know what may be repeated.

    Args:
        base_url: Where the paths begin.
        api_key: Sent as bearer token; empty = none is sent.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = api_key
        try:
            url = httpx2.URL(self._base_url)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise ModelInvalid(
                "the profile's server has no usable address: set VIDMILL_REMOTE_URL, or `url` in"
                " [remote], to something like http://gpu7:8000/v1"
            )
        self.host = url.host if url.port is None else f"{url.host}:{url.port}"
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(ASK_S, connect=CONNECT_S),
            trust_env=not _is_here(url.host),
            verify=_certificates(),
        )

    def ask(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float = ASK_S,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Reply:
        """Send *body* (`json` or `files`) and return the answer, a failure in JSON as well.

        Raises:
            NoAnswer: Nothing usable came back: no connection, 429, or a server error without JSON.
            EngineFailed: The key was refused.
        """
        with self._told():
            sent = {**self._authorization(), **(headers or {})}
            timeout = httpx2.Timeout(timeout_s, connect=CONNECT_S)
            stream = self._client.stream(
                method, self._base_url + path, headers=sent, timeout=timeout, **body
            )
            with stream as response:
                data = _bounded(response, ANSWER_MAX_BYTES, time.monotonic() + timeout_s)
        doc = _object(data)
        status = response.status_code
        if status in _REFUSED_KEY:
            raise EngineFailed(
                f"{self.host} refuses the key ({status}): {self.words(doc)}; set"
                " VIDMILL_REMOTE_API_KEY to one of its own"
            )
        if status == TOO_MANY_REQUESTS or (status >= _SERVER_ERROR and not doc):
            wait_s = _seconds(response.headers.get("retry-after", ""))
            is_sent = status != TOO_MANY_REQUESTS
            brief = f"{self.host} answered {status}"
            raise NoAnswer(brief, self.words(doc), is_sent=is_sent, wait_s=wait_s)
        return Reply(status=status, doc=doc)

    def fetch(self, url: str, file: BinaryIO, *, check: Callable[[], None], is_ours: bool) -> int:
        """Write what *url* holds into *file* and return the status; only a 200 is written.

        *url* is a path of the server, or a whole address; the key is sent where *is_ours*, but to
        no other host by a redirect. *check* is called with every chunk, and may raise.

        Raises:
            NoAnswer: The connection broke, or it took too long.
            BadOutput: It is larger than any clip.
        """
        whole = url if "://" in url else self._base_url + url
        headers = self._authorization() if is_ours else {}
        ends_at = time.monotonic() + FETCH_S
        size = 0
        with (
            self._told(),
            self._client.stream("GET", whole, headers=headers, follow_redirects=True) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                return response.status_code
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                check()
                size += len(chunk)
                if size > CLIP_MAX_BYTES:
                    raise BadOutput(f"{self.host} sent a video of more than {CLIP_MAX_BYTES} bytes")
                if time.monotonic() > ends_at:
                    raise NoAnswer(f"the video took over {FETCH_S:g} s to come", is_sent=True)
                file.write(chunk)
        return response.status_code

    def words(self, doc: Mapping[str, Any]) -> str:
        """Return what *doc* says in words, without the key, and not too much of it."""
        found = doc.get("error") or doc.get("message") or doc.get("detail") or ""
        if isinstance(found, Mapping):
            found = found.get("message") or found.get("code") or ""
        if isinstance(found, list):  # FastAPI's: what is wrong with each field, and its value
            found = "; ".join(_field(each) for each in found)
        text = " ".join(str(found).split())
        return (text.replace(self._key, "***") if self._key else text)[:_MESSAGE_MAX_CHARS]

    def close(self) -> None:
        self._client.close()

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn httpx2's errors into ours."""
        try:
            yield
        except _NOT_SENT as error:
            name = type(error).__name__
            raise NoAnswer(f"{self.host} cannot be reached: {name}", is_sent=False) from error
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            name = type(error).__name__
            raise NoAnswer(f"the connection to {self.host} broke: {name}", is_sent=True) from error


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return what every client shares: reading the authorities takes 50 ms."""
    return httpx2.create_ssl_context()


def _bounded(response: httpx2.Response, max_bytes: int, ends_at: float) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes or time.monotonic() > ends_at:
            raise httpx2.ReadError("the answer does not end")
    return bytes(data)


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _field(problem: Any) -> str:
    """Return FastAPI's words about a field; the value it quotes may be a prompt, and is left."""
    if not isinstance(problem, Mapping):
        return str(problem)
    return f"{'.'.join(map(str, problem.get('loc', ())))}: {problem.get('msg', '')}"


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _is_here(host: str) -> bool:
    """Whether *host* is this machine, to which no proxy leads."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
