"""Brokers and databases of the tests' own, to be killed, wiped and frozen at will."""

import functools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
import redis

from tests.waiting import wait_until
from vidmill.worker.proc import die_with

START_S = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def program(name: str) -> str:
    """Return the path of *name*, of the newest PostgreSQL where PATH has none."""
    found = shutil.which(name)
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found or packaged:
        return found or str(packaged[-1])
    reason = f"{name} is not installed"
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def mortal() -> Callable[[], None]:
    """Return what ties a server to the thread that starts it, run between its fork and its exec."""
    return functools.partial(die_with, os.getpid())


class PrivateRedis:
    """redis-server that keeps nothing: killing it wipes it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [program("redis-server"), "--port", str(self.port), "--save", ""]
        self.process = subprocess.Popen(
            [*command, "--appendonly", "no", "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            preexec_fn=mortal(),  # noqa: PLW1509  a system call and nothing else
        )
        assert wait_until(self._answers, timeout_s=START_S), "redis-server does not answer"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "autovacuum_naptime": "5s",  # thousands of jobs pass in a minute here
    "log_min_messages": "fatal",
}


class PrivatePostgres:
    """A cluster in a folder of its own, run by an unprivileged user: PostgreSQL refuses root."""

    def __init__(self) -> None:
        self.port = free_port()
        self._user = unprivileged()
        self._folder = Path(tempfile.mkdtemp(prefix="vidmill-pg-"))
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        if self._user:
            shutil.chown(self._folder, self._user)
        command = [program("initdb"), "-D", str(self._data), "-U", "vidmill", "-A", "trust"]
        subprocess.run([*command, "-E", "UTF8", "--no-locale"], check=True, **self._as_user)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        options = {**SETTINGS, "port": str(self.port), "unix_socket_directories": self._folder}
        arguments = [f"-c{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [program("postgres"), "-D", str(self._data), *arguments],
            preexec_fn=mortal(),  # noqa: PLW1509  a system call and nothing else
            **self._as_user,
        )
        assert wait_until(self._answers, timeout_s=START_S, step_s=0.1), "postgres does not answer"

    def stop(self, how: signal.Signals) -> None:
        """End it: SIGINT = fast, SIGQUIT = immediate, which is a crash and recovery."""
        self.process.send_signal(how)
        self.process.wait()

    def new_database(self, template: str = "template1") -> str:
        """Return the URL of a database just made from *template*."""
        name = f"faults_{secrets.token_hex(4)}"
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def url(self, name: str, port: int | None = None) -> str:
        return f"postgresql://vidmill@127.0.0.1:{port or self.port}/{name}"

    def connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(name), autocommit=True, connect_timeout=2)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _as_user(self) -> dict[str, Any]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self._folder}
        user = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid} if self._user else {}
        return {**quiet, **user, **({"extra_groups": []} if self._user else {})}

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True


def unprivileged() -> str | None:
    """Return whom to become where this is root; None = stay who we are."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)
