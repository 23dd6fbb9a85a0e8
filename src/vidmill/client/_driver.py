"""Carries out what flows ask for, one action after the other, over one pool of connections."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import httpx2

from vidmill.client import _transport
from vidmill.client._actions import (
    Action,
    Done,
    Flow,
    Open,
    Read,
    Reply,
    Report,
    Request,
    Send,
    Sleep,
    T,
)
from vidmill.client._connection import Connection
from vidmill.client._errors import ServerUnreachable, TransportError


class Driver:
    """Runs flows; safe to share between threads."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        self.connection = connection
        self._http = httpx2.Client(**_transport.options(connection, timeout_s))

    def close(self) -> None:
        self._http.close()

    def run(self, flow: Flow[T], on_news: Callable[[Any], object] | None = None) -> T:
        """Run *flow* to its end; *on_news* is called with all it reports."""
        with contextlib.closing(self.steps(flow)) as steps:
            for step in steps:
                if isinstance(step, Done):
                    return step.value
                if on_news:
                    on_news(step)
        raise AssertionError("a flow ends with Done")

    def news(self, flow: Flow[None]) -> Generator[Any, None, None]:
        """Yield what *flow* reports."""
        with contextlib.closing(self.steps(flow)) as steps:
            for step in steps:
                if not isinstance(step, Done):
                    yield step

    def steps(self, flow: Flow[T]) -> Generator[Any | Done[T], None, None]:
        """Yield all that *flow* reports, and then what it returned."""
        run = _Run(self._http, self.connection)
        try:
            action = flow.send(None)
            while True:
                if isinstance(action, Report):
                    yield action.news
                try:
                    value = run.perform(action)
                except TransportError as error:
                    if isinstance(error, ServerUnreachable):
                        run.connection = self.connection = self.connection.refreshed()
                    action = flow.throw(error)
                else:
                    action = flow.send(value)
        except StopIteration as stop:
            yield Done(stop.value)
        finally:
            flow.close()
            run.close()


class _Run:
    """One flow's dealings with the world; at most one answer is being streamed at a time."""

    def __init__(self, http: httpx2.Client, connection: Connection) -> None:
        self.connection = connection
        self._http = http
        self._response: httpx2.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, action: Action) -> Any:
        """Carry out *action* and return its outcome.

        Raises:
            TransportError: The network failed.
        """
        with _transport.mapped_errors(self.connection):
            match action:
                case Send(request):
                    return _transport.whole(self._http.send(self._build(request)))
                case Open(request, read_timeout_s):
                    return self._open(request, read_timeout_s)
                case Read():
                    return next(self._pieces, None)
                case Sleep(seconds):
                    return time.sleep(seconds)
                case Report():
                    return None  # who runs the flow has passed it on

    def close(self) -> None:
        if self._response:
            self._response.close()

    def _open(self, request: Request, read_timeout_s: float) -> Reply:
        self.close()
        built = self._build(request)
        built.extensions["timeout"] = _transport.time_outs(read_timeout_s).as_dict()
        self._response = self._http.send(built, stream=True)
        if self._response.is_error:
            self._response.read()
            return _transport.whole(self._response)
        self._pieces = self._response.iter_bytes()
        return _transport.head_of(self._response)

    def _build(self, request: Request) -> httpx2.Request:
        return self._http.build_request(**_transport.arguments(request, self.connection))
