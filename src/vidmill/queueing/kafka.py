"""Kombu's Kafka transport, with waits that suit a worker which is steered between them.

A partition belongs to one worker of the group. One that pauses leaves the group, so that the
others get its partitions and the tickets in them.
"""

import json
from queue import Empty
from typing import Any

from confluent_kafka import KafkaException
from kombu.transport import confluentkafka

POLL_S = 0.05
"""How long one look into one topic takes; Kombu would wait as long as for a connection."""

METADATA_S = 1.0
"""Kombu itself would wait for ever."""


class QoS(confluentkafka.QoS):  # type: ignore[misc]  # Kombu has no types
    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002
        """Leave the message uncommitted; whoever gets the partition next reads it again."""
        if requeue:
            self._not_yet_acked.pop(delivery_tag, None)
        else:
            self.ack(delivery_tag)


class Channel(confluentkafka.Channel):  # type: ignore[misc]  # Kombu has no types
    QoS = QoS

    def basic_cancel(self, consumer_tag: str) -> Any:
        topic = self.sanitize_queue_name(self._tag_to_queue.get(consumer_tag, ""))
        cancelled = super().basic_cancel(consumer_tag)
        consumer = self._kafka_consumers.pop(topic, None)
        if consumer:
            consumer.close()
        return cancelled

    def _get(self, queue: str, **_: Any) -> Any:
        message = self._get_consumer(queue).poll(POLL_S)
        if message is None or message.error():
            raise Empty
        return {**json.loads(message.value()), "topic": message.topic()}

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        if not self._has_queue(queue):
            super()._new_queue(queue, **kwargs)

    def _has_queue(self, queue: str, **_: Any) -> bool:
        name = self.sanitize_queue_name(queue)
        return name in self.client.list_topics(timeout=METADATA_S).topics


class Transport(confluentkafka.Transport):  # type: ignore[misc]  # Kombu has no types
    Channel = Channel
    connection_errors = (*confluentkafka.Transport.connection_errors, KafkaException)
