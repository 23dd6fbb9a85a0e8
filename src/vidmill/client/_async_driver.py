"""Carries out what flows ask for on asyncio; the twin of `_driver`."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
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


class AsyncDriver:
    """Runs flows on one event loop."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        self.connection = connection
        self._http = httpx2.AsyncClient(**_transport.options(connection, timeout_s))

    async def close(self) -> None:
        await self._http.aclose()

    async def run(self, flow: Flow[T], on_news: Callable[[Any], object] | None = None) -> T:
        """Run *flow* to its end; *on_news*, if need be a coroutine function, hears its reports."""
        async with contextlib.aclosing(self.steps(flow)) as steps:
            async for step in steps:
                if isinstance(step, Done):
                    return step.value
                answer = on_news(step) if on_news else None
                if inspect.isawaitable(answer):
                    await answer
        raise AssertionError("a flow ends with Done")

    async def news(self, flow: Flow[None]) -> AsyncGenerator[Any, None]:
        """Yield what *flow* reports."""
        async with contextlib.aclosing(self.steps(flow)) as steps:
            async for step in steps:
                if not isinstance(step, Done):
                    yield step

    async def steps(self, flow: Flow[T]) -> AsyncGenerator[Any | Done[T], None]:
        """Yield all that *flow* reports, and then what it returned."""
        run = _Run(self._http, self.connection)
        try:
            action = flow.send(None)
            while True:
                if isinstance(action, Report):
                    yield action.news
                try:
                    value = await run.perform(action)
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
            await run.close()


class _Run:
    """One flow's dealings with the world; at most one answer is being streamed at a time."""

    def __init__(self, http: httpx2.AsyncClient, connection: Connection) -> None:
        self.connection = connection
        self._http = http
        self._response: httpx2.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, action: Action) -> Any:
        """Carry out *action* and return its outcome.

        Raises:
            TransportError: The network failed.
        """
        with _transport.mapped_errors(self.connection):
            match action:
                case Send(request):
                    return _transport.whole(await self._http.send(self._build(request)))
                case Open(request, read_timeout_s):
                    return await self._open(request, read_timeout_s)
                case Read():
                    return await anext(self._pieces, None) if self._pieces else None
                case Sleep(seconds):
                    return await asyncio.sleep(seconds)
                case Report():
                    return None  # who runs the flow has passed it on

    async def close(self) -> None:
        if self._response:
            await self._response.aclose()

    async def _open(self, request: Request, read_timeout_s: float) -> Reply:
        await self.close()
        built = self._build(request)
        built.extensions["timeout"] = _transport.time_outs(read_timeout_s).as_dict()
        self._response = await self._http.send(built, stream=True)
        if self._response.is_error:
            await self._response.aread()
            return _transport.whole(self._response)
        self._pieces = self._response.aiter_bytes()
        return _transport.head_of(self._response)

    def _build(self, request: Request) -> httpx2.Request:
        return self._http.build_request(**_transport.arguments(request, self.connection))
