"""What the servers of a machine take by themselves: the floor under what a decision takes on them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.kafka.connection import client_arguments
from infra.kafka.producer import TransactionalProducer, new_batch
from infra.settings import Settings

PER_SECOND = 50
WARM = 50
_TOPIC = "control"
_TABLE = "CREATE TABLE IF NOT EXISTS control (number integer PRIMARY KEY, value bigint NOT NULL)"
_WRITE = "INSERT INTO control VALUES (1, 1) ON CONFLICT (number) DO UPDATE SET value = control.value + 1"

Once = Callable[[], Awaitable[float]]
"""Does it once; the seconds that it took."""


async def measure_controls(settings: Settings, *, seconds: int) -> dict[str, list[float]]:
    """Seconds that each of them took, by what was done: a commit, a round trip by Kafka, one in a transaction."""
    took = {}
    async with _committing(settings) as once:
        took["control: a commit in Postgres"] = await _repeated(once, seconds)
    topic = await _make_topic(settings)
    async with _round_trip(settings, topic) as once:
        took["control: a record by Kafka"] = await _repeated(once, seconds)
    async with _transactional_round_trip(settings, topic) as once:
        took["control: a Kafka transaction"] = await _repeated(once, seconds)
    return took


async def _repeated(once: Once, seconds: int) -> list[float]:
    for _ in range(WARM):
        await once()
    took = []
    begin = time.perf_counter()
    for number in range(PER_SECOND * seconds):
        await asyncio.sleep(max(0.0, begin + number / PER_SECOND - time.perf_counter()))
        took.append(await once())
    return took


@asynccontextmanager
async def _committing(settings: Settings) -> AsyncIterator[Once]:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        await connection.execute(_TABLE)

        async def once() -> float:
            begun = time.perf_counter()
            await connection.execute(_WRITE)
            return time.perf_counter() - begun

        yield once
    finally:
        await connection.close()


async def _make_topic(settings: Settings) -> str:
    topic = settings.topic(_TOPIC)
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, settings.kafka_replication_factor)])
    finally:
        await admin.close()
    return topic


@asynccontextmanager
async def _reader(settings: Settings, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(**client_arguments(settings), isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_end()
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def _round_trip(settings: Settings, topic: str) -> AsyncIterator[Once]:
    producer = AIOKafkaProducer(**client_arguments(settings), acks="all", linger_ms=0)
    await producer.start()
    try:
        async with _reader(settings, topic) as consumer:

            async def once() -> float:
                begun = time.perf_counter()
                await producer.send(topic, b"x", partition=0)
                await consumer.getone()
                return time.perf_counter() - begun

            yield once
    finally:
        await producer.stop()


@asynccontextmanager
async def _transactional_round_trip(settings: Settings, topic: str) -> AsyncIterator[Once]:
    producer = TransactionalProducer(settings, f"{topic}.{os.getpid()}")
    try:
        await producer.start()
        async with _reader(settings, topic) as consumer:

            async def once() -> float:
                batch = new_batch()
                batch.append(timestamp=int(time.time() * 1_000), key=None, value=b"x", headers=[])
                begun = time.perf_counter()
                await producer.publish({(topic, 0): [batch]})
                await consumer.getone()
                took = time.perf_counter() - begun
                await producer.next_epoch()
                return took

            yield once
    finally:
        await producer.discard()
