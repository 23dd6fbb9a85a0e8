"""What each of Celery's transports must be told, so that nothing ever waits for long.

Celery's own defaults wait for ever on a broker that accepts and never answers.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CALL_S = 1.0
"""Longest wait for a connection or an answer."""

KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""A broker whose machine is gone is noticed within 25 s."""

HEARTBEAT_S = 10
"""The same on AMQP, where the broker may be stopped while its machine answers."""

QUEUE_MAX = 10_000
"""Tickets a queue keeps where the broker can count; beyond, the oldest go."""

PARTITIONS = 16
"""A Kafka topic made here has room for so many workers; the others find work by their poll."""

NO_RETRIES = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}
"""Whoever connects decides itself when to try again."""


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Settings of one transport.

    Attributes:
        cls: Kombu's transport, or ours, as `module:Class`.
        queue: Arguments that a queue is declared with.
        has_expiry: Whether the broker itself forgets messages.
        prefix_option: Option that keeps the transport's own keys apart too.
    """

    options: Mapping[str, Any]
    queue: Mapping[str, Any] = field(default_factory=dict)
    heartbeat_s: int = 0
    has_expiry: bool = False
    cls: str = ""
    prefix_option: str = ""


REDIS = Transport(
    options={
        **NO_RETRIES,
        "socket_timeout": CALL_S,
        "socket_connect_timeout": CALL_S,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
        "health_check_interval": 10,
        # A ticket that a dead worker had taken comes back within a minute. A worker looks for
        # such after every hundredth wait that brought nothing.
        "visibility_timeout": 60,
        "unacked_restore_throttle": 100,
    },
    prefix_option="global_keyprefix",
)

AMQP = Transport(
    options={
        **NO_RETRIES,
        "read_timeout": CALL_S,
        "write_timeout": CALL_S,
        "socket_settings": KEEPALIVE,
    },
    queue={"x-queue-type": "quorum", "x-max-length": QUEUE_MAX},
    heartbeat_s=HEARTBEAT_S,
    has_expiry=True,
)

KAFKA = Transport(
    cls="vidmill.queueing.kafka:Transport",
    options={
        **NO_RETRIES,
        "wait_time_seconds": CALL_S,
        "num_partitions": PARTITIONS,
        # librdkafka demands socket.timeout.ms >= 1000 of what also fetches.
        "kafka_common_config": {"socket.timeout.ms": 1000, "log_level": 0},
        "kafka_producer_config": {"message.timeout.ms": 1000, "linger.ms": 0},
        "kafka_consumer_config": {
            # A group that is new takes what was sent while it gathered.
            "auto.offset.reset": "earliest",
            # Some brokers answer a waiting fetch only when its wait is over.
            "fetch.wait.max.ms": 50,
            "session.timeout.ms": 6000,
            "socket.timeout.ms": 10_000,
        },
        "topic_config": {"retention.ms": "60000"},
    },
)

TRANSPORTS: Mapping[str, Transport] = {
    "redis": REDIS,
    "rediss": REDIS,
    "amqp": AMQP,
    "amqps": AMQP,
    "confluentkafka": KAFKA,
}
