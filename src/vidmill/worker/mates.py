"""The other processes of a render child whose clips are divided among several devices.

They are children of the render child and in its process group: what kills that kills them, and the
kernel does the same should it end in any other way. None of them knows the supervisor.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from select import EPOLLIN, epoll
from typing import Any

from vidmill.domain.errors import WORK_ERRORS, EngineFailed, InternalError
from vidmill.telemetry import get_logger
from vidmill.worker.channel import Channel, StopWord, pair

log = get_logger(__name__)

UNWIND_S = 10.0
"""After a loss, how long this process may take to leave what it was doing with its mates. Gloo's
exchanges end at once when a rank goes; those on GPUs wait for it for ever, and nothing but the end
of the process ends them."""

IDLE_S = 1.0
"""A group lost between two clips is given up after this time, in which the last clip is handed
over."""


class Mates:
    """Ranks 1 and up, each a process of its own; see `engines.ranks.Mates`.

    Args:
        devices: Those of all ranks, rank 0 first.
        order: What the render child was told, for the mates to load the same.
        give_up: Called, in a thread of this class's own, when the group is lost and this process
            is idle or does not come back from what it does; it should not return.
        unwind_s: How long it may take to come back.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        order: Mapping[str, Any],
        give_up: Callable[[Exception], None],
        unwind_s: float = UNWIND_S,
    ) -> None:
        self._devices = devices
        self._order = order
        self._give_up = give_up
        self._unwind_s = unwind_s
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._channels: dict[int, Channel] = {}
        self._said: dict[int, str] = {}
        self._is_busy = self._is_ended = False
        self._change = threading.Condition()
        self.ranks = len(devices)
        self.stop = StopWord.create()
        self.loss: Exception | None = None

    def start(self, source: str) -> None:
        """Start all of them. Call it from the main thread: they die with the thread that did."""
        for rank, device in enumerate(self._devices[1:], start=1):
            self._start_one(rank)
            place = {"rank": rank, "ranks": self.ranks, "device": device}
            self._channels[rank].send({**self._order, **place, "source": source})
        self._is_busy = True
        threading.Thread(target=self._listen, name="mates", daemon=True).start()

    def tell(self, word: str, **fields: Any) -> bool:
        """Tell each of them; what they said before counts no more. False: the group is lost."""
        with self._change:
            if self.loss:
                return False
            self._said.clear()
            self._is_busy = True
        for channel in self._channels.values():
            try:
                channel.send({"say": word, **fields})
            except (BrokenPipeError, ConnectionResetError):
                break  # the listener tells the rest
        return True

    def wait_for(self, word: str, *, within_s: float | None = None) -> bool:
        with self._change:
            self._change.wait_for(lambda: self._are_at(word) or self.loss, within_s)
            are_there = self._are_at(word)
            self._is_busy = not are_there
            self._change.notify_all()
        return are_there

    def end(self) -> None:
        with self._change:
            self._is_ended, self._is_busy = True, False
            self._change.notify_all()
        self._kill()

    def _start_one(self, rank: int) -> None:
        self._channels[rank], theirs = pair()
        fds = (theirs.fileno(), self.stop.descriptor)
        self._processes[rank] = subprocess.Popen(
            [sys.executable, "-m", "vidmill.worker.mate_child", str(os.getpid()), *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=fds,
        )
        theirs.close()

    def _are_at(self, word: str) -> bool:
        return all(self._said.get(rank) == word for rank in self._processes)

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def _listen(self) -> None:
        """Take what the mates say until one is lost, or all are ended."""
        with epoll() as poll:
            for channel in self._channels.values():
                poll.register(channel.fileno(), EPOLLIN)
            while not (losses := self._hear({fd for fd, _ in poll.poll()})):
                pass
        # One that failed makes the exchanges of others fail: its reason comes first.
        losses.sort(key=lambda loss: type(loss) is EngineFailed)
        self._lose(losses[0])

    def _hear(self, readable: set[int]) -> list[Exception]:
        losses: list[Exception] = []
        for rank, channel in self._channels.items():
            if channel.fileno() not in readable:
                continue
            try:
                message, _ = channel.receive()
            except EOFError:
                losses.append(EngineFailed(f"{self._name(rank)} died"))
                continue
            if message["say"] == "failed":
                kind = WORK_ERRORS.get(message["code"], InternalError)
                losses.append(kind(f"{self._name(rank)}: {message['message']}"))
                continue
            with self._change:
                self._said[rank] = message["say"]
                self._change.notify_all()
        return losses

    def _lose(self, loss: Exception) -> None:
        with self._change:
            if self._is_ended:
                return
            self.loss = loss
            is_exchanging = self._is_busy and len(self._said) < len(self._processes)
            self._change.notify_all()
        log.error("group_lost", reason=str(loss))
        self._kill()
        with self._change:
            limit_s = self._unwind_s if is_exchanging else None
            self._change.wait_for(lambda: not self._is_busy, limit_s)
            self._change.wait_for(lambda: self._is_ended or self._is_busy, IDLE_S)
            if self._is_ended or (self._is_busy and not is_exchanging):
                return
        self._give_up(loss)

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self.ranks} ({self._devices[rank]})"
