"""What a flow may ask of the outside world. The clients carry it out; the flows never do I/O.

A flow is a generator: it yields an action and receives its outcome, so that the sync and the async
client share every decision (retries, reconnecting, when a clip is done).
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request, relative to the server's URL.

    Attributes:
        body: Sent as JSON.
        content: Sent as it is, in place of *body*; its type is in *headers*.
        form: Fields of a form, sent with *files*, which are open and read as they are sent.
        is_repeatable: Sending it twice does no harm, so a lost connection may be tried again.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    content: bytes | None = None
    form: Mapping[str, Any] | None = None
    files: Mapping[str, Any] | None = None
    is_repeatable: bool = True


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer. Header names are in lower case; `body` is empty while a stream is open."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_refusal(self) -> bool:
        return self.status >= HTTPStatus.BAD_REQUEST


@dataclass(frozen=True)
class Send:
    """Send and read the whole answer. Outcome: `Reply`."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send, and leave the body of a 2xx to be read piece by piece. Outcome: `Reply`."""

    request: Request
    read_timeout_s: float


@dataclass(frozen=True)
class Read:
    """Read the next piece of the open body. Outcome: `bytes`, or None at its end."""


@dataclass(frozen=True)
class Sleep:
    """Wait. Outcome: None."""

    seconds: float


@dataclass(frozen=True)
class Report:
    """Tell the caller some news: where a task stands, an event, a result. Outcome: None."""

    news: Any


Action = Send | Open | Read | Sleep | Report

Flow = Generator[Action, Any, T]
"""Yields actions, receives their outcomes or a `TransportError`, returns a `T`."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """The last step of a flow: what it returned."""

    value: T
