"""Outputs as they stand on their topics, from a time on: for whoever compares the streams with the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, for_code

from infra.kafka.connection import client_arguments
from infra.kafka.topics import describe_topics
from infra.settings import Settings

_WAIT_MS = 100
_MADE_SECONDS = 3.0


class Place(NamedTuple):
    """Which output a record is."""

    epoch: int
    shard: int
    seq: int


def place_of(record: ConsumerRecord) -> Place | None:
    """The place that an output's headers say; None for a record that is no output of ours, or one published again."""
    headers = dict(record.headers)
    if "ledger-replay" in headers:
        return None
    try:
        return Place(*(int(headers[name]) for name in ("ledger-epoch", "ledger-shard", "ledger-seq")))
    except (KeyError, TypeError, ValueError):
        return None


async def published_since(
    settings: Settings, topics: Sequence[str], since_ms: int | None
) -> AsyncIterator[ConsumerRecord]:
    """What a `read_committed` subscriber sees of these topics (short names), from a timestamp on or from the start.

    Within a partition in order; ends where the topics end now. Raises: KafkaError, OSError.
    """
    places = await _partitions(settings, [settings.topic(name) for name in topics])
    consumer = AIOKafkaConsumer(
        **client_arguments(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_WAIT_MS,
    )
    await consumer.start()
    try:
        consumer.assign(places)
        waiting = await _seek(consumer, places, since_ms)
        while waiting:
            consumer.pause(*(place for place in places if place not in waiting))
            for records in (await consumer.getmany(timeout_ms=_WAIT_MS)).values():
                for record in records:
                    yield record
            # A position counts markers of transactions, too, which are no records.
            waiting = {place: end for place, end in waiting.items() if await consumer.position(place) < end}
    finally:
        await consumer.stop()


async def _partitions(settings: Settings, names: Sequence[str]) -> list[TopicPartition]:
    """All partitions of these topics; one that was just made is waited for. Raises: KafkaError, OSError."""
    deadline = time.monotonic() + _MADE_SECONDS
    while True:
        states = await describe_topics(settings, names)
        absent = {name: state.error_code for name, state in states.items() if state.error_code}
        if not absent:
            return [TopicPartition(name, number) for name in names for number in range(states[name].partitions)]
        if time.monotonic() > deadline:
            name, error_code = next(iter(absent.items()))
            kind: type[KafkaError] = for_code(error_code)
            raise kind(f"the topic {name} can't be read; is it there, and may we read it?")
        await asyncio.sleep(_WAIT_MS / 1000)


async def _seek(
    consumer: AIOKafkaConsumer, places: Sequence[TopicPartition], since_ms: int | None
) -> dict[TopicPartition, int]:
    """Go to the first record that is late enough; returns the partitions that have any, and where each ends."""
    ends = await consumer.end_offsets(places)
    if since_ms is None:
        await consumer.seek_to_beginning(*places)
        starts = await consumer.beginning_offsets(places)
        return {place: ends[place] for place in places if starts[place] < ends[place]}
    found = await consumer.offsets_for_times(dict.fromkeys(places, since_ms))
    for place, at in found.items():
        consumer.seek(place, ends[place] if at is None else at.offset)
    return {place: ends[place] for place, at in found.items() if at is not None and at.offset < ends[place]}
