"""Tickets over Celery: Redis, RabbitMQ or Kafka wakes the workers, the database keeps the jobs."""

from collections.abc import Sequence
from typing import Any

from vidmill.queueing.address import Address, read_address
from vidmill.queueing.celery_app import EXPIRY_S, TICK, connect_once, new_app, queue_of
from vidmill.queueing.celery_transports import TRANSPORTS
from vidmill.queueing.celery_worker import CeleryInbox
from vidmill.queueing.sender import TICKETS_PER_S, Allowance, Sender


class CeleryTickets:
    def __init__(self, url: str) -> None:
        self._address = read_address(url)
        self._allowance = Allowance(TICKETS_PER_S)
        self._sender: Sender[str] = Sender(lambda: _Link(self._address), "ticket-sender")

    def publish(self, pool: str) -> None:
        if self._allowance.take(pool):
            self._sender.put(pool)

    def listen(self, pools: Sequence[str], worker: str) -> CeleryInbox:
        return CeleryInbox(lambda: new_app(self._address, pools), worker)

    def close(self) -> None:
        self._sender.close()


class _Link:
    """One connection to the broker. It declares nothing: a queue without workers needs no post."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._expiry = {"expiration": EXPIRY_S} if TRANSPORTS[address.scheme].has_expiry else {}
        self._app: Any = new_app(address)
        self._connection = self._app.connection_for_write()
        connect_once(self._connection)
        self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)

    def send(self, pool: str) -> None:
        self._app.send_task(
            TICK,
            args=(pool,),
            queue=queue_of(self._address, pool),
            declare=(),
            producer=self._producer,
            retry=False,
            expires=EXPIRY_S,
            **self._expiry,
        )

    def close(self) -> None:
        self._connection.close()
        self._app.close()
