import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import FaultProxy, Mode
from tests.waiting import wait_until


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that says what it hears."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1000):
                    heard.append(data)
                    connection.sendall(data)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    heard.clear()
    yield "127.0.0.1", listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


heard: list[bytes] = []


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[FaultProxy]:
    with FaultProxy(echo) as proxy:
        yield proxy


@pytest.fixture
def caller(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.settimeout(0.3)
        connection.sendall(b"a")
        assert connection.recv(10) == b"a"
        yield connection


def test_blackhole_holds_back_what_is_sent_until_it_passes(
    proxy: FaultProxy, caller: socket.socket
) -> None:
    proxy.switch(Mode.BLACKHOLE)
    caller.sendall(b"b")
    with pytest.raises(TimeoutError):
        caller.recv(10)
    assert heard == [b"a"]
    proxy.switch(Mode.PASS)
    assert caller.recv(10) == b"b"


def test_blackhole_accepts_new_connections(proxy: FaultProxy, caller: socket.socket) -> None:
    proxy.switch(Mode.BLACKHOLE)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as late:
        late.sendall(b"b")
        with pytest.raises(TimeoutError):
            late.recv(10)


def test_half_open_delivers_but_never_answers(proxy: FaultProxy, caller: socket.socket) -> None:
    proxy.switch(Mode.HALF_OPEN)
    caller.sendall(b"b")
    assert wait_until(lambda: heard == [b"a", b"b"], timeout_s=5)
    with pytest.raises(TimeoutError):
        caller.recv(10)


def test_drop_closes_every_connection_old_and_new(proxy: FaultProxy, caller: socket.socket) -> None:
    proxy.switch(Mode.DROP)
    assert caller.recv(10) == b""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as late:
        assert late.recv(10) == b""
    proxy.switch(Mode.PASS)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as again:
        again.sendall(b"c")
        assert again.recv(10) == b"c"


def test_reset_is_told_from_a_close(proxy: FaultProxy, caller: socket.socket) -> None:
    proxy.switch(Mode.RESET)
    with pytest.raises(ConnectionResetError):
        caller.recv(10)


def test_delay_makes_answers_late(proxy: FaultProxy, caller: socket.socket) -> None:
    proxy.switch(Mode.DELAY)
    caller.settimeout(5)
    caller.sendall(b"b")
    assert caller.recv(10) == b"b"
