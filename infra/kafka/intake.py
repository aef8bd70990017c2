"""Kafka in: FastStream's batch subscribers, made safe against what their defaults would lose.

FastStream polls and calls the handlers; which records are valid, where reading begins and what counts as read is
decided by the partitions' readers. Nothing here acknowledges anything to anyone: the positions are in Postgres.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.message import StreamMessage

from infra.kafka.connection import client_arguments
from infra.kafka.consumer import LedgerConsumer, Polled
from infra.kafka.reader import PartitionReader
from infra.kafka.stream import Batch, Stream, Translate
from infra.kafka.topics import topic_ids
from infra.ledger import BatchResult, Ledger
from infra.patience import Outage
from infra.settings import Settings

log = logging.getLogger(__name__)

SESSION_SECONDS = 10.0
"""How long the group waits for a worker that says nothing, before others get its partitions."""
HEARTBEAT_SECONDS = 0.5
STALLED_SECONDS = 60.0
TOPIC_SECONDS = 5.0
"""How often it is looked whether a topic is still the one that it was."""
TOPIC_IDS_SECONDS = 1.0
COMMIT_SECONDS = 1.0


class StreamStalledError(Exception):
    """A stream isn't polled any more though nothing says that it ended: start it anew."""


class _Unacknowledged(KafkaAckableMessage):
    """A batch whose acknowledgement commits nothing; FastStream's rewind after a failure is left as it is."""

    async def ack(self) -> None:
        await StreamMessage.ack(self)


class Intake:
    """All input streams of a worker: one FastStream broker, one consumer group a stream."""

    def __init__(self, settings: Settings, ledger: Ledger, pool: asyncpg.Pool) -> None:
        self.settings = settings
        self.ending = False
        self.counts = BatchResult()
        self.streams: dict[str, Stream] = {}
        self._ledger = ledger
        self._pool = pool
        self._topic_ids: dict[str, UUID] = {}
        self._topic_ids_at = -TOPIC_IDS_SECONDS
        self._asking = asyncio.Lock()
        self._outage = Outage()
        self._broker = KafkaBroker(
            settings.need_kafka_bootstrap(),
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=None,
            logger=None,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def subscriber(self, name: str, *, urgent: bool = False) -> Callable[[Callable[[Batch], Awaitable[None]]], None]:
        """Subscribe a handler to a stream by its short name; what is `urgent` goes before the rest on its shard.

        The handler gets a Batch and hands it on; it must not raise, and what it returns is published nowhere.
        """
        stream = self.streams[name] = Stream(
            name, self.settings.topic(name), partial(self._reader, urgent=urgent), lambda: self.ending
        )

        def decorate(handler: Callable[[Batch], Awaitable[None]]) -> None:
            async def parse(polled: tuple[Polled, ...]) -> StreamMessage[Any]:
                # FastStream's own parser raises on a header that is null or not UTF-8, and that record is lost.
                return _Unacknowledged(
                    body=b"", headers={}, raw_message=polled, message_id="", consumer=stream.consumer
                )

            async def decode(message: StreamMessage[Any]) -> Batch:
                return Batch(stream, message.raw_message)

            stream.subscriber = self._broker.subscriber(
                stream.topic,
                batch=True,
                group_id=self.settings.group(name),
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                ack_policy=AckPolicy.NACK_ON_ERROR,
                no_reply=True,
                max_records=self.settings.batch_rows_max,
                batch_timeout_ms=self.settings.batch_timeout_ms,
                # A rebalance begins when each member hears of it with its heartbeat, stream after stream at a start.
                heartbeat_interval_ms=int(HEARTBEAT_SECONDS * 1000),
                session_timeout_ms=int(SESSION_SECONDS * 1000),
                # Waiting for a database that is away must not cost us the partition.
                max_poll_interval_ms=24 * 60 * 60 * 1000,
                listener=stream.listener,
                parser=parse,
                decoder=decode,
            )
            stream.subscriber(handler)

        return decorate

    async def start(self) -> None:
        """Join the groups and begin to read. Raises: KafkaError, OSError."""
        await self._broker.connect()
        for stream in self.streams.values():
            # FastStream has no other place to say which class a consumer is of.
            stream.subscriber._outer_config.broker_config.builder = self._builder()
        await self._broker.start()
        self._tasks = [
            asyncio.create_task(self._commit_for_lag_monitors()),
            asyncio.create_task(self._watch_topics()),
        ]

    def _builder(self) -> Callable[..., LedgerConsumer]:
        by_group = {self.settings.group(name): stream.readers for name, stream in self.streams.items()}
        # A topic that was deleted and made again has partitions for us only when metadata was asked for again.
        ours = {"enable_auto_commit": False, "metadata_max_age_ms": int(TOPIC_SECONDS * 1000)}
        arguments = client_arguments(self.settings) | ours

        def build(*topics: str, group_id: str, **options: Any) -> LedgerConsumer:
            return LedgerConsumer(
                *topics,
                readers=by_group[group_id],
                group_id=group_id,
                **(options | arguments),
            )

        return build

    async def stop(self) -> None:
        """Leave the groups; commits under way end first."""
        self.ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(stream.end_readers(set(stream.readers)) for stream in self.streams.values()))
        await self._broker.stop()

    def _reader(self, partition: TopicPartition, consumer: AIOKafkaConsumer, *, urgent: bool) -> PartitionReader:
        return PartitionReader(
            partition=partition,
            consumer=consumer,
            ledger=self._ledger,
            pool=self._pool,
            topic_id_of=self._topic_id_of,
            home_shard=partition.partition % self.settings.shards,
            applied=self.counts.add,
            outage=self._outage,
            rows_max=self.settings.batch_rows_max,
            urgent=urgent,
        )

    async def _topic_id_of(self, topic: str) -> UUID:
        ids = await self._fresh_topic_ids()
        if topic not in ids:
            raise OSError(f"{topic} isn't on the broker")
        return ids[topic]

    async def _fresh_topic_ids(self) -> dict[str, UUID]:
        """The ids of the topics, a second old at most: all readers of a worker ask at once."""
        async with self._asking:
            if time.monotonic() - self._topic_ids_at >= TOPIC_IDS_SECONDS:
                self._topic_ids = await topic_ids(self.settings, [stream.topic for stream in self.streams.values()])
                self._topic_ids_at = time.monotonic()
            return self._topic_ids

    async def _watch_topics(self) -> None:
        """A topic that was deleted and made again is another one: it is read from its beginning."""
        while True:
            await asyncio.sleep(TOPIC_SECONDS)
            try:
                ids = await self._fresh_topic_ids()
            except (KafkaError, OSError) as fault:
                log.debug("the ids of the topics can't be read (%r)", fault)
                continue
            for reader in self._readers():
                topic = reader.partition.topic
                if reader.reading.is_set() and ids.get(topic, reader.topic_id) != reader.topic_id:
                    log.warning("%s was made again: it is read from its beginning", topic)
                    reader.begin_again()

    async def joined(self) -> None:
        """Return when every stream has its partitions, none maybe, and every reader its position."""
        for stream in self.streams.values():
            await stream.assigned.wait()
        while late := [reader for reader in self._readers() if not reader.reading.is_set()]:
            # Not for long: a reader whose partition is revoked meanwhile will never read.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await late[0].reading.wait()

    def _readers(self) -> list[PartitionReader]:
        return [reader for stream in self.streams.values() for reader in stream.readers.values()]

    async def watch(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set. Raises: StreamStalledError when a stream isn't polled any more."""
        while not stop.is_set():
            for stream in self.streams.values():
                consumer = stream.consumer
                silent = 0.0 if consumer is None else time.monotonic() - consumer.polled_at
                if silent > STALLED_SECONDS and not stream.working:
                    raise StreamStalledError(f"{stream.topic} was not polled for a minute")
            try:
                async with asyncio.timeout(1.0):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _commit_for_lag_monitors(self) -> None:
        """Tell Kafka now and then what is committed in Postgres: nobody begins to read there."""
        told: dict[TopicPartition, int] = {}
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            for stream in self.streams.values():
                cursors = {
                    partition: reader.cursor
                    for partition, reader in stream.readers.items()
                    if reader.cursor is not None and told.get(partition) != reader.cursor
                }
                if not cursors or stream.consumer is None:
                    continue
                try:
                    await stream.consumer.commit(cursors)
                    told |= cursors
                except Exception as fault:
                    log.debug("%s: lag monitors weren't told (%r)", stream.topic, fault)


__all__ = ["Batch", "Intake", "Stream", "StreamStalledError", "Translate"]
