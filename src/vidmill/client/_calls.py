"""How one call is made: what is tried again, when, and for how long. No I/O happens here."""

import math
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel

from vidmill.client._actions import Flow, Open, Read, Reply, Report, Request, Send, Sleep
from vidmill.client._errors import (
    ApiError,
    DownloadDamaged,
    ServerUnreachable,
    TransportError,
    api_error,
)
from vidmill.client._sinks import Sink

Model = TypeVar("Model", bound=BaseModel)

BUSY = frozenset({429, 503})
"""The server took nothing and asks to come back: safe to repeat, even a submit."""

TRANSIENT = BUSY | {502, 504}
"""Answers after which a repeatable request is tried again."""

MOST_TRIES = {"enhancer_unavailable": 2, "quota_exceeded": 1}
"""So often in all: a call of a language model costs something, and no wait of a minute changes a
day that is used up, or a plan that is too small."""

SILENCE_S = 40.0
"""An event stream says something every 15 s; a longer silence means that it is dead."""

IN_PROGRESS = "idempotency_in_progress"
"""The first sending of this very request is under way: its answer is soon to be had."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to keep trying, in seconds of waiting between tries.

    Attributes:
        unreachable_s: No server answers at the first request. Short: it is probably not running.
        busy_s: The server asks to come back (queue full, starting).
        outage_s: The server vanished while a clip was being made. Long: a restart loses nothing.
    """

    unreachable_s: float = 2.0
    busy_s: float = 60.0
    outage_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Makes calls patiently. `clock` is monotonic; `jitter` gives 0..1.

    Attributes:
        poll_s: Pause between looks at a task, where the server does not ask for another.
    """

    patience: Patience = Patience()
    poll_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def ask(self, model: type[Model], request: Request) -> Flow[Model]:
        """Send *request* and return the answer as a *model*."""
        return model.model_validate_json((yield from self.send(request)).body)

    def items(
        self, model: type[BaseModel], path: str, query: Mapping[str, str] | None = None
    ) -> Flow[None]:
        """Report all that is listed at *path*, page after page as it is asked for."""
        cursor: dict[str, str] = {}
        while True:
            page: Any = yield from self.ask(model, getting(path, {**(query or {}), **cursor}))
            for item in page.data:
                yield Report(item)
            if not page.next_cursor:
                return
            cursor = {"cursor": page.next_cursor}

    def send(self, request: Request, *, unreachable_s: float | None = None) -> Flow[Reply]:
        """Send *request*, again where that is safe, and return a 2xx.

        Raises:
            ApiError: The server refused.
            TransportError: It could not be reached for as long as patience allows.
        """
        waited_s, tries, was_there = 0.0, 0, False
        while True:
            tries += 1
            try:
                reply: Reply = yield Send(request)
                if not reply.is_refusal:
                    return reply
                error: ApiError | TransportError = api_error(
                    reply.status, reply.headers, reply.body
                )
            except TransportError as lost:
                error = lost
            was_there |= not isinstance(error, ServerUnreachable)
            delay_s = self.delay_s(error, tries)
            allowed_s = self._allowed_s(error, unreachable_s, was_there=was_there)
            if not _may_repeat(error, request, tries) or waited_s + delay_s > allowed_s:
                raise error
            waited_s += delay_s
            yield Sleep(delay_s)

    def download(
        self, path: str, query: Mapping[str, str], *, into: Sink, sha256: str
    ) -> Flow[None]:
        """Stream a file *into* a sink, going on where a dropped connection stopped.

        Raises:
            DownloadDamaged: The bytes do not have the checksum *sha256* (unless that is empty).
        """
        waited_s, tries = 0.0, 0
        while True:
            tries += 1
            before = into.size
            try:
                yield from self._receive(path, query, into)
                break
            except (TransportError, ApiError) as error:
                tries = 1 if into.size > before else tries
                delay_s = self.delay_s(error, tries)
                is_final = isinstance(error, ApiError) and error.status not in TRANSIENT
                if is_final or waited_s + delay_s > self.patience.busy_s:
                    raise
            waited_s += delay_s
            yield Sleep(delay_s)
        if sha256 and into.sha256() != sha256:
            raise DownloadDamaged(f"{path}: SHA-256 is {into.sha256()}, the server says {sha256}")

    def _receive(self, path: str, query: Mapping[str, str], into: Sink) -> Flow[None]:
        headers = {"Range": f"bytes={into.size}-"} if into.size else {}
        request = Request(method="GET", path=path, query=query, headers=headers)
        reply: Reply = yield Open(request, SILENCE_S)
        if (
            reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        ):  # nothing is left to send; the checksum decides
            return
        if reply.is_refusal:
            raise api_error(reply.status, reply.headers, reply.body)
        if reply.status != HTTPStatus.PARTIAL_CONTENT and into.size:
            into.restart()
        while (piece := (yield Read())) is not None:
            into.write(piece)

    def _allowed_s(
        self, error: ApiError | TransportError, unreachable_s: float | None, *, was_there: bool
    ) -> float:
        """Return how long to wait in all; a server that was heard of will probably be back."""
        if unreachable_s is None:
            unreachable_s, is_busy = self.patience.unreachable_s, was_there
        else:
            is_busy = isinstance(error, ApiError)
        return max(self.patience.busy_s, unreachable_s) if is_busy else unreachable_s

    def delay_s(self, error: ApiError | TransportError, tries: int) -> float:
        """Return what the server asked for, or 0.25 s doubling to 5 s, each with jitter."""
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        backoff_s = float(min(5.0, 0.25 * 2.0 ** (tries - 1)))
        return asked_s if asked_s is not None else backoff_s * (0.5 + self.jitter())


def creating(
    path: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, str] | None = None
) -> Request:
    """Return a POST that makes something once: its key lets it be sent again after a loss."""
    return Request(
        method="POST",
        path=path,
        query=query or {},
        headers={"Idempotency-Key": str(uuid.uuid4())},
        body=body,
    )


def deleting(path: str) -> Request:
    """Return a DELETE, sent once: after a loss, a second one would find nothing."""
    return Request(method="DELETE", path=path, is_repeatable=False)


def getting(path: str, query: Mapping[str, str] | None = None) -> Request:
    return Request(method="GET", path=path, query=query or {})


def posting(path: str, body: Mapping[str, Any] | None = None) -> Request:
    """Return a POST that changes nothing more when it is repeated."""
    return Request(method="POST", path=path, body=body)


def _may_repeat(error: ApiError | TransportError, request: Request, tries: int) -> bool:
    if isinstance(error, ApiError):
        if tries >= MOST_TRIES.get(error.code, math.inf):
            return False
        is_passing = error.status in (TRANSIENT if request.is_repeatable else BUSY)
        return is_passing or error.code == IN_PROGRESS
    return request.is_repeatable or isinstance(error, ServerUnreachable)
