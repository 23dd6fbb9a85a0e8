"""Unix datagram sockets in a folder: whoever wants post binds one there, and all of them get it.

Addresses go through `/proc/self/fd/N/name`, because a socket path is limited to 108 bytes and a
data folder's is not.
"""

import contextlib
import os
import socket
from pathlib import Path
from typing import Self

DATAGRAM_BYTES = 64 * 1024
"""Largest message read; events are a few hundred bytes."""

SUFFIX = ".sock"


def _open_folder(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


HIDDEN = ".hidden"
"""What a name ends with while nobody shall post to it."""


class Mailbox:
    """Receives what is posted to *folder*, under *names* nobody else uses."""

    def __init__(self, folder: Path, *names: str) -> None:
        self._folder_fd = _open_folder(folder)
        self._names = [f"{name}{SUFFIX}" for name in names]
        self._suffix = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        first, *others = self._names
        self._socket.bind(f"/proc/self/fd/{self._folder_fd}/{first}")
        for name in others:  # a socket has one address, its file several names
            os.link(first, name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> list[bytes]:
        """Return, without waiting, every message that has come."""
        messages: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(DATAGRAM_BYTES, socket.MSG_DONTWAIT))
        return messages

    def wait(self) -> bytes:
        """Return the next message, however long it takes."""
        return self._socket.recv(DATAGRAM_BYTES)

    def wake(self) -> None:
        """Send an empty message to oneself, so that `wait` returns."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", f"/proc/self/fd/{self._folder_fd}/{self._names[0]}")

    def hide(self) -> None:
        """Let nobody post here until `show`; what has come stays."""
        self._rename(HIDDEN)

    def show(self) -> None:
        self._rename("")

    def _rename(self, suffix: str) -> None:
        for name in self._names:
            with contextlib.suppress(FileNotFoundError):  # renamed before
                os.rename(
                    f"{name}{self._suffix}",
                    f"{name}{suffix}",
                    src_dir_fd=self._folder_fd,
                    dst_dir_fd=self._folder_fd,
                )
        self._suffix = suffix

    def close(self) -> None:
        for name in self._names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{name}{self._suffix}", dir_fd=self._folder_fd)
        self._socket.close()
        os.close(self._folder_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Post:
    """Sends to every mailbox of *folder*. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder_fd = _open_folder(folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, message: bytes, *, prefix: str = "") -> int:
        """Send without waiting to all mailboxes whose name starts so; return how many got it.

        A full mailbox loses the message, and all of them one that is too long. A mailbox whose
        process is gone is removed.
        """
        if len(message) > DATAGRAM_BYTES:
            return 0
        found = os.listdir(self._folder_fd)  # noqa: PTH208  a descriptor is no path
        names = [name for name in found if name.endswith(SUFFIX)]
        return sum(self._send_to(name, message) for name in names if name.startswith(prefix))

    def _send_to(self, name: str, message: bytes) -> bool:
        try:
            address = f"/proc/self/fd/{self._folder_fd}/{name}"
            self._socket.sendto(message, socket.MSG_DONTWAIT, address)
        except ConnectionRefusedError:  # bound by a process that died
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder_fd)
            return False
        except OSError:  # full, or removed since it was listed
            return False
        return True

    def close(self) -> None:
        self._socket.close()
        os.close(self._folder_fd)
