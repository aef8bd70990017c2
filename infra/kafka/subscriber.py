"""A subscriber to the output topics that reads what is there now: for the demo, and for whoever audits a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.connection import client_arguments, quiet_aiokafka
from infra.kafka.topics import describe_topics
from infra.settings import Settings

SECONDS_MAX = 60.0


async def committed(
    settings: Settings, topics: Iterable[str], *, isolation: str = "read_committed"
) -> list[ConsumerRecord]:
    """What a subscriber sees of these topics (short names) up to now, partition by partition in order.

    Raises: TimeoutError after SECONDS_MAX, saying what was still to be read; KafkaError, OSError.
    """
    quiet_aiokafka(settings)
    names = [settings.topic(name) for name in topics]
    reading = _Reading({}, {})
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await _committed(settings, names, isolation, reading)
    except TimeoutError as fault:
        raise TimeoutError(
            f"Kafka at {settings.kafka_bootstrap} did not give all of {', '.join(names)} within {SECONDS_MAX:g} s; "
            f"still to be read: {reading.left() or 'not known, it did not answer'}"
        ) from fault


class _Reading(NamedTuple):
    """How far each partition was read, and to where it is to be."""

    positions: dict[TopicPartition, int]
    ends: dict[TopicPartition, int]

    def left(self) -> str:
        return ", ".join(
            f"{place.topic}[{place.partition}] from {self.positions.get(place, 0)} to {end}"
            for place, end in self.ends.items()
            if self.positions.get(place, 0) < end
        )


async def _committed(settings: Settings, names: list[str], isolation: str, reading: _Reading) -> list[ConsumerRecord]:
    states = await describe_topics(settings, names)
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
        return await _read_to_the_end(consumer, places, reading)
    finally:
        await consumer.stop()


async def _read_to_the_end(
    consumer: AIOKafkaConsumer, places: list[TopicPartition], reading: _Reading
) -> list[ConsumerRecord]:
    # With read_committed the end is the last stable offset: a transaction under way is not waited for.
    reading.ends.update(await consumer.end_offsets(places))
    records: dict[TopicPartition, list[ConsumerRecord]] = {place: [] for place in places}
    waiting = set(places)
    while waiting:
        for place, some in (await consumer.getmany(timeout_ms=50)).items():
            records[place] += some
        # A position counts markers of transactions, too, which are no records.
        reading.positions.update({place: await consumer.position(place) for place in waiting})
        waiting = {place for place in waiting if reading.positions[place] < reading.ends[place]}
    return [record for place in places for record in records[place]]
