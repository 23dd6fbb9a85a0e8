"""A TCP proxy that does to a connection what networks do, on command, from a thread of its own."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any, Self

CHUNK_BYTES = 65_536
LINGER_NONE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST instead of FIN."""


class Mode(StrEnum):
    PASS = "pass"
    DELAY = "delay"  # each piece arrives `delay_s` late
    DROP = "drop"  # every connection is closed, and each new one at once
    RESET = "reset"  # the same, by RST
    HALF_OPEN = "half_open"  # what is sent arrives, no answer ever comes back
    BLACKHOLE = "blackhole"  # connections are accepted; nothing arrives on either side


ENDING = frozenset({Mode.DROP, Mode.RESET})


class FaultProxy:
    """Forwards `127.0.0.1:port` to *target*; what was held back arrives once it passes again."""

    def __init__(self, target: tuple[str, int], *, delay_s: float = 0.2) -> None:
        self.target = target
        self._delay_s = delay_s
        self._mode = Mode.PASS
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy")
        self._thread.start()
        self._changed = asyncio.Condition()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """Return how many clients are connected."""
        return len(self._writers) // 2

    def switch(self, mode: Mode) -> None:
        """Treat all connections so from now on, those that are open as well."""
        self._do(self._switch(mode))

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _switch(self, mode: Mode) -> None:
        async with self._changed:
            self._mode = mode
            self._changed.notify_all()
        if mode in ENDING:
            self._end_all()

    async def _close(self) -> None:
        self._mode = Mode.DROP
        self._server.close()
        self._end_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _end_all(self) -> None:
        for writer in list(self._writers):
            self._end(writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.RESET:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        writer.transport.abort() if self._mode is Mode.RESET else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode in ENDING:
            self._end(writer)
            return
        self._writers.add(writer)
        try:
            await self._until_not(Mode.BLACKHOLE)
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self._forget(writer)
            return
        self._writers.add(far_writer)
        there = asyncio.ensure_future(self._pump(reader, far_writer))
        back = asyncio.ensure_future(self._pump(far_reader, writer, is_answer=True))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio's streams would complain of it in the log
        finally:
            there.cancel()
            back.cancel()
            self._forget(writer)
            self._forget(far_writer)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        self._end(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._until_not(Mode.BLACKHOLE, *([Mode.HALF_OPEN] if is_answer else []))
                if self._mode is Mode.DELAY:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()

    async def _until_not(self, *modes: Mode) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._mode not in modes)
