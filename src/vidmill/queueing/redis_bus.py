"""Events over Redis pub/sub."""

import time
from collections.abc import Iterable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from vidmill.queueing.address import Address, read_address
from vidmill.queueing.celery_transports import CALL_S, KEEPALIVE
from vidmill.queueing.remote_bus import Feed, RemoteBus
from vidmill.queueing.sender import Link


class RedisBus(RemoteBus):
    def __init__(self, url: str) -> None:
        super().__init__(_Redis(read_address(url)))


class _Redis:
    def __init__(self, address: Address) -> None:
        self._address = address

    def link(self) -> Link[tuple[str, str]]:
        return _Publisher(self._client(), self._address.prefix)

    def feed(self, purpose: str) -> Feed:
        return _Subscription(self._client(), f"{self._address.prefix}.{purpose}")

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._address.url,
            decode_responses=True,
            socket_timeout=CALL_S,
            socket_connect_timeout=CALL_S,
            socket_keepalive=True,
            socket_keepalive_options=KEEPALIVE,
            retry=Retry(NoBackoff(), 0),
        )


class _Publisher:
    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def send(self, item: tuple[str, str]) -> None:
        purpose, text = item
        self._client.publish(f"{self._prefix}.{purpose}", text)

    def close(self) -> None:
        self._client.close()


class _Subscription:
    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(channel)
        self._expect("subscribe")

    def wait(self, timeout_s: float) -> Iterable[str]:
        message = self._pubsub.get_message(timeout=timeout_s)
        while message:
            if message["type"] == "message":
                yield message["data"]
            message = self._pubsub.get_message(timeout=0)

    def probe(self) -> None:
        self._pubsub.ping()
        self._expect("pong", "message")

    def close(self) -> None:
        self._pubsub.close()
        self._client.close()

    def _expect(self, *kinds: str) -> None:
        end = time.monotonic() + CALL_S
        while (left := end - time.monotonic()) > 0:
            message = self._pubsub.get_message(timeout=left)
            if message and message["type"] in kinds:
                return
        raise TimeoutError(f"no answer within {CALL_S} s")
