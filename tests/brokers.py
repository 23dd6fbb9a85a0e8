"""Brokers as tests want them: shared ones under a prefix of their own, private ones, frozen ones.

Kafka is librdkafka's built-in mock cluster (`test.mock.num.brokers`), which speaks the real
protocol on a loopback port; a real cluster is not part of the tests.
"""

import contextlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from confluent_kafka import Producer
from kombu import Connection

from tests.services import require_postgres, require_rabbitmq, require_redis
from tests.waiting import wait_until

REDIS_DB = 4


@contextlib.contextmanager
def local(folder: Path) -> Iterator[str]:
    """Give a folder longer than a socket's 108 bytes."""
    yield f"local://{folder / ('deep ' * 30) / 'run'}"


@contextlib.contextmanager
def shared_redis(_: Path) -> Iterator[str]:
    server = re.sub(r"(:\d+)(/\d+)?$", rf"\1/{REDIS_DB}", require_redis())
    prefix = new_prefix()
    yield f"{server}?prefix={prefix}"
    with redis.Redis.from_url(server) as client:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)


@contextlib.contextmanager
def shared_rabbitmq(_: Path) -> Iterator[str]:
    server = require_rabbitmq()
    prefix = new_prefix()
    yield f"{server}?prefix={prefix}"
    for pool in ("gpu", "cpu", "gpu2"):
        delete_queue(f"{server}?prefix={prefix}", pool)
    with Connection(server) as connection, connection.channel() as channel:
        channel.exchange_delete(prefix)


def delete_queue(url: str, pool: str) -> None:
    server, _, prefix = url.partition("?prefix=")
    with Connection(server) as connection, connection.channel() as channel:
        channel.queue_delete(f"{prefix}.{pool}")


@contextlib.contextmanager
def mock_kafka(_: Path) -> Iterator[str]:
    cluster = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(cluster.list_topics(timeout=5).brokers.values()))
    yield f"confluentkafka://{broker.host}:{broker.port}/?prefix={new_prefix()}"
    del cluster


@contextlib.contextmanager
def shared_postgres(_: Path) -> Iterator[str]:
    yield f"{require_postgres()}?prefix={new_prefix()}"


def new_prefix() -> str:
    return f"test{secrets.token_hex(4)}"


class PrivateRedis:
    """A server without persistence, so that killing it wipes it."""

    def __init__(self) -> None:
        if not shutil.which("redis-server"):
            pytest.skip("no redis-server on the path")
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self._port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        assert wait_until(self._answers, timeout_s=10)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Let it hold its connections and say nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self._port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextlib.contextmanager
def private_redis() -> Iterator[PrivateRedis]:
    server = PrivateRedis()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def frozen_server() -> Iterator[int]:
    """Give the port of a server that accepts and never answers."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_accept, args=(server, kept), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


def _accept(server: socket.socket, kept: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        while True:
            kept.append(server.accept()[0])


class Proxy:
    """Forwards to a real broker until it freezes: then it accepts, and nothing comes or goes."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._is_open = threading.Event()
        self._is_open.set()
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._start(self._accept)

    def freeze(self) -> None:
        self._is_open.clear()

    def thaw(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self.thaw()
        for end in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, name="proxy", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._server.accept()[0]
                far = socket.create_connection(self._upstream)
                self._sockets += [near, far]
                self._start(self._pump, near, far)
                self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._is_open.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def behind_proxy(url: str) -> Iterator[tuple[str, Proxy]]:
    """Give *url* by way of a proxy, and the proxy."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    proxy = Proxy((host, port))
    try:
        yield url.replace(f"{host}:{port}", f"127.0.0.1:{proxy.port}"), proxy
    finally:
        proxy.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


Opener = Callable[[Path], contextlib.AbstractContextManager[str]]
