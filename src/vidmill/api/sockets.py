"""News of many tasks over one WebSocket, in the envelopes of `events`.

What waits for a slow reader is the newest state of each task and nothing else, so a connection
never holds more than its subscriptions; a reader who takes nothing for `SLOW_S` is dropped.
"""

import asyncio
import contextlib
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from vidmill.api.auth import HINT, key_of
from vidmill.api.body import parse
from vidmill.api.desk import Desk
from vidmill.api.errors import NATIVE, Asked, problem
from vidmill.api.events import Teller, parse_event_id
from vidmill.domain.errors import FieldProblem, InvalidRequest, Unauthorized, VidmillError
from vidmill.domain.permission import Scope
from vidmill.services.access import Caller
from vidmill.services.tasks import TaskView
from vidmill.telemetry import get_logger

log = get_logger(__name__)

AUTH_S = 10.0
"""How long a connection may take to say whose it is."""

SLOW_S = 10.0
"""A reader who takes nothing for so long is dropped; he resumes with `after`."""

MESSAGE_MAX_BYTES = 64 * 1024
"""Holds the ids of a thousand tasks, with where to go on after each."""

TASKS_MAX = 1000
"""Tasks that one connection may follow."""

POLICY, TOO_BIG, INTERNAL, AGAIN_LATER = 1008, 1009, 1011, 1013
"""Close codes (RFC 6455 §7.4 and the registry it names)."""

OLD_KEY = "the API key was revoked or has expired; come back with another"

Closing = tuple[int, str]
Message = Mapping[str, object]


class TaskSocket:
    """One connection. *tell* puts news into words."""

    def __init__(self, desk: Desk, socket: WebSocket, *, tell: Teller) -> None:
        self._desk = desk
        self._socket = socket
        self._tell = tell
        self._caller: Caller | None = None
        self._key = ""
        self._stops: dict[str, Callable[[], None]] = {}
        self._heard: dict[str, tuple[int, int]] = {}
        self._news: dict[str, TaskView | None] = {}
        self._has_news = asyncio.Event()
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        try:
            await self._admit_by_header()
            leave = self._desk.following.admit()
        except VidmillError as error:
            await self._socket.send_denial_response(
                NATIVE.response(error, Asked.of(self._socket.scope))
            )
            return
        closing = None
        try:
            await self._socket.accept()
            closing = await self._serve()
        finally:
            leave()
            for stop in self._stops.values():
                stop()
        if closing:
            await self._hang_up(*closing)

    async def _hang_up(self, code: int, reason: str) -> None:
        """Say why, if it can be said: to one who takes nothing even that has to wait."""
        with contextlib.suppress(RuntimeError, OSError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(SLOW_S):
                await self._socket.close(code, reason)

    async def _serve(self) -> Closing | None:
        """Listen and talk until one of both ends; return why we hang up, if we do."""
        async with asyncio.TaskGroup() as group:
            works = [
                group.create_task(self._until_over(work)) for work in (self._listen, self._talk)
            ]
            done, running = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
        return next(iter(done)).result()

    async def _until_over(self, work: Callable[[], Awaitable[Closing]]) -> Closing | None:
        """Return why we hang up; None when the other side did."""
        try:
            return await work()
        except _TooSlow:
            return AGAIN_LATER, "too slow; come back and resume with `after`"
        except (WebSocketDisconnect, OSError):
            return None
        except Exception as error:  # noqa: BLE001 - the edge of this connection, as `edge` is
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error(  # noqa: TRY400 - the message may hold prompts and keys
                "socket_failed", error=type(error).__name__, trace=trace
            )
            return INTERNAL, "this is our mistake; it was logged"

    async def _listen(self) -> Closing:
        """Do what the messages say, one after the other; return why to hang up."""
        deadline = asyncio.get_running_loop().time() + AUTH_S
        while True:
            try:
                async with asyncio.timeout_at(None if self._caller else deadline):
                    text = await self._receive()
            except TimeoutError:
                return POLICY, "no API key came"
            if len(text.encode(errors="replace")) > MESSAGE_MAX_BYTES:
                return TOO_BIG, f"a message has at most {MESSAGE_MAX_BYTES} bytes"
            try:
                await self._obey(text)
            except Unauthorized as error:
                await self._complain(error)
                return POLICY, "no such API key"
            except VidmillError as error:
                await self._complain(error)

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        return message.get("text") or ""

    async def _talk(self) -> Closing:
        """Tell the news for as long as there is somebody to tell."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            if not await self._desk.gate.still_admits(self._key):
                return POLICY, OLD_KEY
            news, self._news = self._news, {}
            for task_id, view in news.items():
                await self._pass_on(task_id, view)

    async def _pass_on(self, task_id: str, view: TaskView | None) -> None:
        if task_id not in self._heard:
            return  # unsubscribed meanwhile
        if view is None:
            self._forget(task_id)
            await self._send({"type": "t2v.task.deleted", "data": {"task_id": task_id}})
        elif view.order_key > self._heard[task_id]:
            self._heard[task_id] = view.order_key
            await self._send(self._tell.envelope(view))
        if view is not None and view.is_over:
            self._forget(task_id)

    async def _obey(self, text: str) -> None:
        message = parse(text.encode(errors="replace"))
        action = message.get("action") if isinstance(message, dict) else None
        act = _ACTIONS.get(action) if isinstance(action, str) else None
        if act is None:
            raise _wrong("action", f"choose one of: {', '.join(_ACTIONS)}")
        if self._caller is None and action != "auth":
            raise Unauthorized(f'say {{"action": "auth", "token": <key>}} first, or {HINT}')
        if self._caller and not await self._desk.gate.still_admits(self._key):
            raise Unauthorized(OLD_KEY)
        assert isinstance(message, dict)
        await act(self, message)

    async def _auth(self, message: Message) -> None:
        token = message.get("token")
        if not isinstance(token, str):
            raise _wrong("token", "it must be an API key")
        caller = await self._reader(token)
        if self._caller and self._caller.tenant_id != caller.tenant_id:
            raise _wrong("token", "another tenant's; open a connection for each")
        self._caller, self._key = caller, token
        await self._send({"type": "ready", "data": {"tasks_max": TASKS_MAX}})

    async def _subscribe(self, message: Message) -> None:
        wanted = _task_ids(message)
        after = message.get("after", {})
        if not isinstance(after, dict):
            raise _wrong("after", "it must be an object of task ids and the id last heard of each")
        if len(self._stops.keys() | set(wanted)) > TASKS_MAX:
            raise _wrong("task_ids", f"a connection follows at most {TASKS_MAX} tasks")
        found = [task_id for task_id in wanted if await self._follow(task_id, after.get(task_id))]
        await self._send({"type": "subscribed", "data": {"task_ids": found}})

    async def _follow(self, task_id: str, heard: object) -> bool:
        """Begin to follow a task; False if that cannot be, which the other side was told."""
        assert self._caller is not None
        caller = self._caller
        try:
            view = await self._desk.glances.get(task_id, caller)
            if task_id not in self._stops:
                on_news = partial(self._hear, view.job.public_id)
                stop = self._desk.following.watch(view, caller, on_news)
                self._stops[task_id] = stop
        except VidmillError as error:
            await self._complain(error, task_id=task_id)
            return False
        self._heard[task_id] = parse_event_id(heard if isinstance(heard, str) else None)
        self._hear(task_id, view)
        await asyncio.sleep(0)  # a thousand ids are a thousand reads: let others have their turn
        return True

    async def _unsubscribe(self, message: Message) -> None:
        gone = [task_id for task_id in _task_ids(message) if task_id in self._stops]
        for task_id in gone:
            self._forget(task_id)
        await self._send({"type": "unsubscribed", "data": {"task_ids": gone}})

    def _forget(self, task_id: str) -> None:
        self._heard.pop(task_id, None)
        self._stops.pop(task_id)()

    def _hear(self, task_id: str, view: TaskView | None) -> None:
        self._news[task_id] = view
        self._has_news.set()

    async def _admit_by_header(self) -> None:
        given = self._socket.headers.get("authorization")
        if given is not None:
            key = key_of(given)
            self._caller, self._key = await self._reader(key), key

    async def _reader(self, key: str) -> Caller:
        caller = await self._desk.gate.admit_key(key)
        caller.require(Scope.READ)
        return caller

    async def _complain(self, error: VidmillError, **more: str) -> None:
        said = problem(error, request_id="")
        kept = {
            name: said[name] for name in ("code", "detail", "retryable", "errors") if name in said
        }
        await self._send({"type": "error", "data": {**kept, **more}})

    async def _send(self, doc: Mapping[str, Any]) -> None:
        text = json.dumps(doc, ensure_ascii=False, separators=(",", ":"))
        try:
            async with asyncio.timeout(SLOW_S), self._turn:
                await self._socket.send_text(text)
        except TimeoutError:
            raise _TooSlow from None


class _TooSlow(Exception):
    """The other side takes nothing."""


_ACTIONS: Mapping[str, Callable[[TaskSocket, Message], Any]] = {
    "auth": TaskSocket._auth,  # noqa: SLF001  the table of this very class
    "subscribe": TaskSocket._subscribe,  # noqa: SLF001
    "unsubscribe": TaskSocket._unsubscribe,  # noqa: SLF001
}


def _task_ids(message: Message) -> list[str]:
    found = message.get("task_ids")
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise _wrong("task_ids", "it must be a list of task ids")
    return list(dict.fromkeys(found))


def _wrong(name: str, message: str) -> InvalidRequest:
    return InvalidRequest([FieldProblem(pointer=f"#/{name}", code="not_offered", message=message)])
