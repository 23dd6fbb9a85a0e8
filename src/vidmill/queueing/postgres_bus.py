"""Events over PostgreSQL's NOTIFY, for installations without Redis.

It needs a direct connection: through a pooler that lends one per transaction, LISTEN hears nothing.
Everything here goes through libpq's asynchronous calls, because a plain query waits for ever on a
server that accepts and never answers.
"""

import select
import time
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import pq

from vidmill.queueing.address import Address, read_address
from vidmill.queueing.celery_transports import CALL_S
from vidmill.queueing.remote_bus import Feed, RemoteBus
from vidmill.queueing.sender import Link

PAYLOAD_BYTES = 7999
"""The server's own limit; events are a few hundred bytes."""

OPTIONS: Mapping[str, Any] = {
    "application_name": "vidmill-events",
    "connect_timeout": 2,  # the least that libpq heeds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

GOOD = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})


class PostgresBus(RemoteBus):
    def __init__(self, url: str) -> None:
        super().__init__(_Postgres(read_address(url)))


class _Postgres:
    def __init__(self, address: Address) -> None:
        self._address = address

    def link(self) -> Link[tuple[str, str]]:
        return _Notifier(_Wire(self._address.url), self._address.prefix)

    def feed(self, purpose: str) -> Feed:
        return _Listener(_Wire(self._address.url), f"{self._address.prefix}.{purpose}")


class _Wire:
    """A connection whose every answer is awaited for `CALL_S` at most."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.Connection.connect(url, autocommit=True, **OPTIONS)
        self.pg = self._connection.pgconn

    def ask(self, query: bytes, *parameters: bytes) -> None:
        """Run *query*.

        Raises:
            TimeoutError: No answer came.
            psycopg.OperationalError: The server refused it, or is gone.
        """
        self.pg.send_query_params(query, parameters)
        end = time.monotonic() + CALL_S
        while self.pg.flush():
            self._await(end, is_writing=True)
        while self.pg.is_busy():
            self._await(end)
            self.pg.consume_input()
        while result := self.pg.get_result():
            if result.status not in GOOD:
                raise psycopg.OperationalError(result.error_message.decode(errors="replace"))

    def _await(self, end: float, *, is_writing: bool = False) -> None:
        fds = [self.pg.socket]
        left = max(0.0, end - time.monotonic())
        if not any(select.select(fds, fds if is_writing else [], [], left)):
            raise TimeoutError(f"no answer within {CALL_S} s")

    def close(self) -> None:
        self._connection.close()


class _Notifier:
    def __init__(self, wire: _Wire, prefix: str) -> None:
        self._wire = wire
        self._prefix = prefix

    def send(self, item: tuple[str, str]) -> None:
        purpose, text = item
        payload = text.encode()
        if len(payload) <= PAYLOAD_BYTES:
            channel = f"{self._prefix}.{purpose}".encode()
            self._wire.ask(b"SELECT pg_notify($1, $2)", channel, payload)

    def close(self) -> None:
        self._wire.close()


class _Listener:
    def __init__(self, wire: _Wire, channel: str) -> None:
        self._wire = wire
        name = pq.Escaping(wire.pg).escape_identifier(channel.encode())
        wire.ask(b"LISTEN " + bytes(name))

    def wait(self, timeout_s: float) -> Iterable[str]:
        pg = self._wire.pg
        if select.select([pg.socket], [], [], timeout_s)[0]:
            pg.consume_input()
        while notice := pg.notifies():
            yield notice.extra.decode()

    def probe(self) -> None:
        self._wire.ask(b"SELECT 1")

    def close(self) -> None:
        self._wire.close()
