"""What supervisor and child say to each other: JSON messages, some with a file descriptor.

A SEQPACKET socket keeps messages whole, so a process killed in the middle of one cannot leave half
of it behind, and reading one never blocks on the rest.
"""

import contextlib
import json
import mmap
import os
import socket
from array import array
from collections.abc import Mapping
from typing import Any

MESSAGE_BYTES = 256 * 1024
"""Far above the largest spec (two prompts of 500 characters, escaped) or result."""

RUN_BYTES = 8
FD_SPACE_BYTES = socket.CMSG_LEN(array("i").itemsize)


class Channel:
    """One end. Messages are small dictionaries; the descriptor passed along is duplicated."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any], *, fd: int | None = None) -> None:
        socket.send_fds(self._socket, [_encode(message)], [] if fd is None else [fd])

    def send_if_room(self, message: Mapping[str, Any]) -> None:
        """Send, or drop the message when the other side does not read."""
        with contextlib.suppress(BlockingIOError):
            self._socket.send(_encode(message), socket.MSG_DONTWAIT)

    def receive(self, *, is_waiting: bool = True) -> tuple[dict[str, Any], int | None]:
        """Return the next message and the descriptor that came with it, which the caller closes.

        Raises:
            EOFError: The other side is gone.
            BlockingIOError: Nothing is there and *is_waiting* is false.
        """
        flags = socket.MSG_CMSG_CLOEXEC | (0 if is_waiting else socket.MSG_DONTWAIT)
        try:  # not socket.recv_fds, which forgets the flags (CPython 3.11)
            data, extra, _, _ = self._socket.recvmsg(MESSAGE_BYTES, FD_SPACE_BYTES, flags)
        except ConnectionResetError:
            data, extra = b"", []
        if not data:
            raise EOFError
        fds = [fd for _, _, packed in extra for fd in array("i", packed)]
        return json.loads(data), fds[0] if fds else None

    def close(self) -> None:
        self._socket.close()


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def pair() -> tuple[Channel, socket.socket]:
    """Return our end, and the socket to pass to a child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), theirs


class StopWord:
    """Number of the run that should stop, in memory shared with a child.

    A number and not a flag: a late stop cannot hit the next run. An aligned word of 8 bytes is
    written and read in one piece.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._word = memoryview(mmap.mmap(descriptor, RUN_BYTES)).cast("Q")

    @classmethod
    def create(cls) -> "StopWord":
        descriptor = os.memfd_create("vidmill-stop", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, RUN_BYTES)
        return cls(descriptor)

    def ask(self, run: int) -> None:
        self._word[0] = run

    def is_asked(self, run: int) -> bool:
        return self._word[0] == run

    def close(self) -> None:
        self._word.release()
        os.close(self.descriptor)
