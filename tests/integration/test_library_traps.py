"""What FastStream and aiokafka do that would lose records, and what we rely on instead, pinned."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaConnectionError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from consumers.app import STREAMS
from consumers.translate import read_command, translator
from infra.kafka.connection import check_libraries
from infra.kafka.consumer import LedgerConsumer
from infra.kafka.intake import Intake, Stream
from infra.kafka.reader import PartitionReader
from infra.ledger import Ledger, LedgerRules
from infra.postgres.engine import open_pool
from infra.settings import Settings, SettingsError
from infra.turns import EVENTS_LEAST
from schemas.topics import OUTPUT_TOPICS, TOPICS
from tests.fixtures.relay import books
from tests.fixtures.traffic import payment, publish

__all__ = ["books"]

pytestmark = pytest.mark.shards(1)
NACK = AckPolicy.NACK_ON_ERROR
Handler = Callable[[list[bytes]], Awaitable[None]]


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(15):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def faststream(settings: Settings, handler: Handler, **options: Any) -> AsyncIterator[KafkaBroker]:
    """FastStream's own batch subscriber to the payments, with its own parser."""
    broker = KafkaBroker(settings.kafka_bootstrap, logger=None, apply_types=False, allow_auto_create_topics=False)
    subscriber = broker.subscriber(
        settings.topic("payments"), batch=True, group_id=settings.group("plain"),
        auto_offset_reset="earliest", batch_timeout_ms=10, **options,
    )  # fmt: skip
    subscriber(handler)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@asynccontextmanager
async def intake(settings: Settings) -> AsyncIterator[Intake]:
    """The ledger's own subscribers."""
    pool = await open_pool(settings)
    rules = LedgerRules(
        shards=settings.shards,
        partitions=dict.fromkeys(OUTPUT_TOPICS, settings.shards),
        value_bytes_max={name: TOPICS[name].max_message_bytes for name in OUTPUT_TOPICS},
    )
    ours = Intake(settings, Ledger(pool, rules, read_command), pool)
    for stream in STREAMS:
        stream.subscribe(ours, translator(settings.shards))
    try:
        await ours.start()
        await ours.joined()
        yield ours
    finally:
        await ours.stop()
        await pool.close()


def reading_payments(ours: Intake) -> tuple[LedgerConsumer, PartitionReader]:
    """The consumer of the payments, and the reader of their one partition."""
    consumer = ours.streams["payments"].consumer
    assert isinstance(consumer, LedgerConsumer)
    (reader,) = consumer.readers.values()
    return consumer, reader


async def send(settings: Settings, value: bytes, *, headers: list[tuple[str, Any]] | None = None, **more: Any) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, **more)
    await producer.start()
    try:
        await producer.send_and_wait(settings.topic("payments"), value, headers=headers or [])
    finally:
        await producer.stop()


def fails_once(seen: list[bytes], fault: BaseException) -> Handler:
    async def handler(values: list[bytes]) -> None:
        seen.extend(values)
        if len(seen) == 1:
            raise fault

    return handler


# --- which batches are lost -----------------------------------------------------------------------------------------


async def test_under_nack_on_error_a_failed_batch_comes_again(books: asyncpg.Connection, settings: Settings) -> None:
    seen: list[bytes] = []
    async with faststream(settings, fails_once(seen, ValueError()), ack_policy=NACK):
        await send(settings, b"one")
        await until(lambda: len(seen) == 2)
    assert seen == [b"one", b"one"]


@pytest.mark.parametrize("policy", [AckPolicy.ACK, AckPolicy.ACK_FIRST, None])
async def test_under_every_other_policy_a_failed_batch_is_lost(
    books: asyncpg.Connection, settings: Settings, policy: AckPolicy | None
) -> None:
    seen: list[bytes] = []
    options = {} if policy is None else {"ack_policy": policy}
    async with faststream(settings, fails_once(seen, ValueError()), **options):
        await send(settings, b"one")
        await until(lambda: seen)
        await send(settings, b"two")
        await until(lambda: len(seen) == 2)
    assert seen == [b"one", b"two"]


async def test_a_null_header_is_lost_by_the_default_parser_and_not_by_ours(
    books: asyncpg.Connection, settings: Settings
) -> None:
    seen: list[bytes] = []

    async def handler(values: list[bytes]) -> None:
        seen.extend(values)

    async with faststream(settings, handler, ack_policy=NACK) as broker:
        await send(settings, payment(1).value, headers=[("note", None)])
        consumer: Any = broker.subscribers[0].consumer  # type: ignore[attr-defined]
        await until(consumer.assignment)
        place = TopicPartition(settings.topic("payments"), 0)
        async with asyncio.timeout(10):
            while await consumer.position(place) < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await send(settings, b"two")
        await until(lambda: seen)
    assert seen == [b"two"]
    async with intake(settings) as ours:
        await until(lambda: ours.counts.applied == 1 and ours.counts.dead_letters == 1)


# --- polls ----------------------------------------------------------------------------------------------------------


async def test_an_empty_poll_takes_its_timeout_twice(settings: Settings) -> None:
    class Empty:
        async def getmany(self, *, timeout_ms: int, max_records: int | None) -> dict[Any, Any]:
            await asyncio.sleep(timeout_ms / 1000)
            return {}

    subscriber = KafkaBroker().subscriber("any", batch=True, batch_timeout_ms=50)
    began = time.monotonic()
    assert await subscriber.get_msg(Empty()) == ()  # type: ignore[arg-type]
    assert time.monotonic() - began >= 0.1
    assert settings.batch_timeout_ms <= 20


async def test_what_was_fetched_before_a_pause_is_not_polled_after_it(
    books: asyncpg.Connection, settings: Settings
) -> None:
    await send(settings, b"one")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=settings.group("paused"), auto_offset_reset="earliest"
    )

    class Pausing(ConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
            return

        async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
            consumer.pause(*assigned)

    consumer.subscribe([settings.topic("payments")], listener=Pausing())
    await consumer.start()
    try:
        await until(consumer.assignment)
        (place,) = consumer.assignment()
        assert await consumer.getmany(timeout_ms=300) == {}
        consumer.resume(place)
        assert await consumer.getmany(timeout_ms=5_000)
        consumer.seek(place, 0)
        await until(lambda: place in consumer._fetcher._records)
        consumer.pause(place)
        assert await consumer.getmany(timeout_ms=100) == {}
    finally:
        await consumer.stop()


async def test_our_consumers_are_built_and_polls_are_tagged_before_anything_else_runs(
    books: asyncpg.Connection, settings: Settings
) -> None:
    async with intake(settings) as ours:
        consumer, reader = reading_payments(ours)
        fetched_records, polled, found_at, tagged_at = consumer._fetcher.fetched_records, [], [], []

        async def fetched(*arguments: Any, **more: Any) -> Any:
            polled.append(arguments)
            found = await fetched_records(*arguments, **more)
            if found:
                asyncio.get_running_loop().call_soon(reader.begin_again)
                found_at.append(reader.generation)
            return found

        async def take(self: Stream, batch: Any, translate: Any) -> None:
            tagged_at.extend(polled.generation for polled in batch)
            await take_really(self, batch, translate)

        take_really = Stream.take
        consumer._fetcher.fetched_records = fetched
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Stream, "take", take)
            # The poll under way is still aiokafka's own.
            await until(lambda: polled)
            await publish(settings, [payment(1)])
            await until(lambda: tagged_at)
        consumer._fetcher.fetched_records = fetched_records
        assert tagged_at[0] == found_at[0]
        await until(lambda: ours.counts.applied == 1)


async def test_a_poll_of_money_gives_no_more_than_one_part_where_somebody_waits(
    books: asyncpg.Connection, settings: Settings
) -> None:
    async with intake(settings) as ours:
        consumer, reader = reading_payments(ours)
        fetched_records, asked = consumer._fetcher.fetched_records, list[int | None]()

        async def fetched(*arguments: Any, max_records: int | None, **more: Any) -> Any:
            asked.append(max_records)
            return await fetched_records(*arguments, max_records=max_records, **more)

        consumer._fetcher.fetched_records = fetched
        await until(lambda: settings.batch_rows_max in asked)
        async with reader._ledger._turns.take(0, urgent=True):
            pass
        await until(lambda: EVENTS_LEAST in asked)
        consumer._fetcher.fetched_records = fetched_records


# --- what would be published ----------------------------------------------------------------------------------------


async def test_a_strangers_reply_to_is_answered_by_default_and_not_by_us(
    books: asyncpg.Connection, settings: Settings
) -> None:
    topic = settings.topic("refunds")

    async def handler(values: list[bytes]) -> str:
        return "an answer"

    async with intake(settings) as ours:
        await send(settings, payment(1).value, headers=[("reply_to", topic.encode())])
        await until(lambda: ours.counts.applied == 1)
        assert await ends(settings, topic) == 0
    async with faststream(settings, handler, ack_policy=NACK):  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while not await ends(settings, topic):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def ends(settings: Settings, topic: str) -> int:
    place = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    try:
        return int((await consumer.end_offsets([place]))[place])
    finally:
        await consumer.stop()


# --- what ends or stalls --------------------------------------------------------------------------------------------


async def test_a_broker_that_is_away_is_an_error_at_once() -> None:
    broker = KafkaBroker("127.0.0.1:9", logger=None)
    broker.subscriber("any")(lambda message: None)
    with pytest.raises(KafkaConnectionError):
        await broker.start()
    await broker.stop()


async def test_a_stray_cancellation_ends_faststreams_loop_and_not_ours(
    books: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    async with faststream(settings, fails_once(seen, asyncio.CancelledError()), ack_policy=NACK) as broker:
        await send(settings, payment(1).value)
        await until(lambda: seen)
        (subscriber,) = broker.subscribers
        await until(lambda: all(task.done() for task in subscriber.tasks))  # type: ignore[attr-defined]
        assert subscriber.running
    raised: list[int] = []
    take_really = Stream._take_one

    async def take_one(self: Stream, polled: Any, translate: Any) -> None:
        if not raised:
            raised.append(1)
            raise asyncio.CancelledError
        await take_really(self, polled, translate)

    monkeypatch.setattr(Stream, "_take_one", take_one)
    async with intake(settings) as ours:
        await until(lambda: ours.counts.applied == 1)
    assert raised


async def test_compressed_topics_are_read_and_missing_codecs_are_noticed_at_the_start(
    books: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        await send(settings, payment(codec).value, compression_type=codec)
    async with intake(replace(settings, group_id="compressed")) as ours:
        await until(lambda: ours.counts.applied == 4)
    check_libraries()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="install cramjam"):
        check_libraries()
