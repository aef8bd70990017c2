"""A subscriber to the output topics that reads what is there now: for the demo, and for whoever audits a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.connection import client_arguments, quiet_aiokafka
from infra.kafka.topics import describe_topics
from infra.settings import Settings

SECONDS_MAX = 60.0


async def committed(
    settings: Settings, topics: Iterable[str], *, isolation: str = "read_committed"
) -> list[ConsumerRecord]:
    """What a subscriber sees of these topics (short names) up to now, partition by partition in order.

    Raises: TimeoutError, KafkaError, OSError.
    """
    quiet_aiokafka(settings)
    states = await describe_topics(settings, [settings.topic(name) for name in topics])
    places = [TopicPartition(name, number) for name, state in states.items() for number in range(state.partitions)]
    consumer = AIOKafkaConsumer(
        **client_arguments(replace(settings, client_id="ledgerstream-subscriber")),
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        consumer.assign(places)
        async with asyncio.timeout(SECONDS_MAX):
            return await _read_to_the_end(consumer, places)
    finally:
        await consumer.stop()


async def _read_to_the_end(consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> list[ConsumerRecord]:
    # With read_committed the end is the last stable offset: a transaction under way is not waited for.
    ends = await consumer.end_offsets(places)
    records: dict[TopicPartition, list[ConsumerRecord]] = {place: [] for place in places}
    waiting = set(places)
    while waiting:
        for place, some in (await consumer.getmany(timeout_ms=50)).items():
            records[place] += some
        # A position counts markers of transactions, too, which are no records.
        waiting = {place for place in waiting if await consumer.position(place) < ends[place]}
    return [record for place in places for record in records[place]]
