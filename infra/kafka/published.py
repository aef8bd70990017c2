"""Outputs as they stand on their topics, from a time on: for whoever compares the streams with the books."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.connection import client_arguments
from infra.kafka.topics import describe_topics
from infra.settings import Settings

_WAIT_MS = 100


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
    states = await describe_topics(settings, [settings.topic(name) for name in topics])
    places = [TopicPartition(name, number) for name, state in states.items() for number in range(state.partitions)]
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
