"""Publisher and subscriber of a benchmark: librdkafka's, on threads of their own.

They share the cores with what they measure, and take half of the CPU that clients in Python do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from infra.settings import Settings

POLL_SECONDS = 0.2
READ_MOST = 500
METADATA_SECONDS = 30.0
FLUSH_SECONDS = 60.0

Acknowledged = Callable[[], None]


class Publisher:
    """Publishes with `acks=all`, where Java's partitioner would."""

    def __init__(self, settings: Settings, *, linger_ms: int) -> None:
        ours: dict[str, str | int] = {"acks": "all", "linger.ms": linger_ms, "partitioner": "murmur2_random"}
        self._producer = Producer(_arguments(settings) | ours)
        self._fault: KafkaError | None = None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Acknowledgements are heard of during the block; what was sent in it is published at its end."""
        with _repeated(lambda: self._producer.poll(POLL_SECONDS)):
            yield
        self.flush()

    def send(self, topic: str, value: bytes, *, key: bytes, acknowledged: Acknowledged | None = None) -> None:
        """Publish soon. `acknowledged` is called in another thread. Raises: KafkaException, where one wasn't."""
        if self._fault is not None:
            raise KafkaException(self._fault)

        def told(fault: KafkaError | None, _: Message) -> None:
            if fault is not None:
                self._fault = fault
            elif acknowledged is not None:
                acknowledged()

        self._producer.produce(topic, value, key=key, on_delivery=told)

    def flush(self) -> None:
        """Return when all is published."""
        self._producer.flush(FLUSH_SECONDS)


class Subscriber:
    """Reads a topic from its beginning on, what is committed of it."""

    def __init__(self, settings: Settings, topic: str, read: Callable[[list[bytes]], None]) -> None:
        """`read(values)` is called in another thread with what has come."""
        # It reads no group's positions, but librdkafka wants a name.
        ours: dict[str, str | bool] = {"group.id": f"{topic}.bench", "enable.auto.commit": False}
        self._consumer = Consumer(_arguments(settings) | ours | {"isolation.level": "read_committed"})
        self._topic = topic
        self._read = read

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Reads during the block."""
        partitions = self._consumer.list_topics(self._topic, METADATA_SECONDS).topics[self._topic].partitions
        self._consumer.assign([TopicPartition(self._topic, number, 0) for number in partitions])
        try:
            with _repeated(self._read_once):
                yield
        finally:
            self._consumer.close()

    def _read_once(self) -> None:
        values: list[bytes] = []
        message = self._consumer.poll(POLL_SECONDS)
        while message is not None:
            value = message.value()
            if message.error() is None and value is not None:
                values.append(value)
            message = self._consumer.poll(0) if len(values) < READ_MOST else None
        if values:
            self._read(values)


@contextmanager
def _repeated(step: Callable[[], object]) -> Iterator[None]:
    """A thread does this again and again during the block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            step()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _arguments(settings: Settings) -> dict[str, str | int | bool]:
    """What librdkafka calls the settings of how Kafka is reached."""
    named = {
        "bootstrap.servers": settings.need_kafka_bootstrap(),
        "client.id": settings.client_id,
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password,
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "ssl.certificate.location": settings.kafka_ssl_certfile,
        "ssl.key.location": settings.kafka_ssl_keyfile,
    }
    return {name: value for name, value in named.items() if value is not None}
