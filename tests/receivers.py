"""Receivers of webhooks on a real port of this machine: honest, slow and hostile ones."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """One request as it came."""

    line: str
    headers: Mapping[str, str]
    body: bytes


Behave = Callable[[socket.socket, Call], None]


@dataclass
class Receiver:
    """Answers each connection by *behave*; `calls` are the requests so far."""

    behave: Behave
    port: int
    tls: ssl.SSLContext | None = None
    calls: list[Call] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiving(behave: Behave, *, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Receive on a free port for the block."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    receiver = Receiver(behave, port=listener.getsockname()[1], tls=tls)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=_serve, args=(receiver, connection), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield receiver
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def answering(status: int, *headers: str, body: bytes = b"ok") -> Behave:
    """Return an honest receiver's behaviour."""

    def answer(connection: socket.socket, _call: Call) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)

    return answer


def answering_in_turn(*statuses: int) -> Behave:
    """Return a receiver that gives each of *statuses* once, the last one for ever."""
    left = list(statuses)

    def answer(connection: socket.socket, call: Call) -> None:
        answering(left.pop(0) if len(left) > 1 else left[0])(connection, call)

    return answer


def drip(connection: socket.socket, _call: Call) -> None:
    """Answer 200 and a body without end, a byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b".")
        time.sleep(0.02)


def dripping_head(connection: socket.socket, _call: Call) -> None:
    """Begin an answer, and send a byte of its head now and then."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def hang_up(_connection: socket.socket, _call: Call) -> None:
    """Close without a word."""


def flood(connection: socket.socket, _call: Call) -> None:
    """Answer 200 and as much as the other side takes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def header_flood(connection: socket.socket, _call: Call) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"x" * 65536 + b"\r\n")


def interim_flood(connection: socket.socket, _call: Call) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


def silence(connection: socket.socket, _call: Call) -> None:
    """Never answer."""
    connection.recv(1)


def reset(connection: socket.socket, _call: Call) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def babble(connection: socket.socket, _call: Call) -> None:
    connection.sendall(b"220 mail.example.com ESMTP\r\n")


def _serve(receiver: Receiver, connection: socket.socket) -> None:
    try:
        if receiver.tls:
            connection = receiver.tls.wrap_socket(connection, server_side=True)
        with connection:
            call = _read(connection)
            receiver.calls.append(call)
            receiver.behave(connection, call)
    except OSError:  # the caller hung up, which is what many tests are about
        pass


def _read(connection: socket.socket) -> Call:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (text.split(": ", 1) for text in rest)}
    while len(body) < int(headers.get("content-length", "0")):
        body += _some(connection)
    return Call(line, headers, body)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError
    return data
