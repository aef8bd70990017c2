"""Reads input topics again, and applies what they hold with the keys that it always had: what is known stays as it is.

The workers' read positions are neither asked nor moved. What was lost is found again, what was applied is a duplicate.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, StaleMetadata

from domain.events import Event
from infra.kafka.by_hand import read_by_hand
from infra.kafka.connection import client_arguments
from infra.kafka.lag import Reach, reaches
from infra.kafka.stream import Translate, read_one
from infra.kafka.topics import topic_ids
from infra.ledger import BatchResult, Ledger
from infra.postgres.save import TenantMovedError
from infra.records import DeadLetter
from infra.settings import Settings, SettingsError
from schemas.topics import READ_TOPICS

STALLED_SECONDS = 30.0
_EMPTY_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records: from an offset of some partitions, from a time, or all; of a tenant, of a type, or any.

    `offsets` is by the full name of the topic. A record that is no event has neither tenant nor type: it is read
    again only where neither was asked for.
    """

    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    since: datetime | None = None
    tenant: str | None = None
    type: str | None = None

    def takes(self, event: Event) -> bool:
        return self.tenant in (None, event.tenant_id) and self.type in (None, event.type)

    @property
    def takes_letters(self) -> bool:
        return self.tenant is None and self.type is None


@dataclass(slots=True)
class Stretch:
    """What is to be read of one partition: up to its end as of when we began."""

    place: TopicPartition
    topic_id: UUID
    offset: int
    end: int
    records: list[ConsumerRecord] = field(default_factory=list)

    @property
    def time(self) -> int:
        """When the next record was published, in milliseconds."""
        return int(self.records[0].timestamp)


async def stretches(settings: Settings, wanted: Wanted) -> list[Stretch]:
    """What there is to read. Raises: SettingsError when Kafka can't be asked, or doesn't have it any more."""
    names = [settings.topic(name) for name in READ_TOPICS]
    found = {TopicPartition(*place): reach for place, reach in (await reaches(settings, names)).items()}
    starts = await _starts(settings, wanted, found)
    ids = await topic_ids(settings, names)
    return [
        Stretch(place, ids[place.topic], start, found[place].end)
        for place, start in starts.items()
        if start < found[place].end
    ]


async def _starts(
    settings: Settings, wanted: Wanted, found: Mapping[TopicPartition, Reach]
) -> dict[TopicPartition, int]:
    if wanted.since is not None:
        return await _first_since(settings, wanted.since, found)
    for place, offset in wanted.offsets.items():
        if place not in found:
            raise SettingsError(f"{place.topic}[{place.partition}] is no partition of an input topic of this ledger")
        if offset < found[place].beginning:
            raise SettingsError(
                f"{place.topic}[{place.partition}] begins at {found[place].beginning}: what stood before is gone from "
                "Kafka; publish it again from its source, or begin there"
            )
    return dict(wanted.offsets) or {place: reach.beginning for place, reach in found.items()}


async def _first_since(
    settings: Settings, since: datetime, found: Mapping[TopicPartition, Reach]
) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(**client_arguments(settings))
    try:
        await consumer.start()
        first = await consumer.offsets_for_times(dict.fromkeys(found, int(since.timestamp() * 1000)))
        return {place: at.offset for place, at in first.items() if at is not None}
    finally:
        await consumer.stop()


async def replay_topics(
    settings: Settings,
    ledger: Ledger,
    waiting: Sequence[Stretch],
    wanted: Wanted,
    translate: Translate,
    *,
    told: Callable[[int], None] = lambda count: None,
) -> BatchResult:
    """Apply every record of these stretches that is wanted; `told` hears how many offsets were passed.

    Of all partitions the record that was published first comes first, as far as that can be told without reading
    ahead. Writes: what the ledger writes, but no read position. Raises: KafkaError, OSError, TransientError.
    """
    total = BatchResult()
    if not waiting:
        return total
    async for stretch, records in _in_time(settings, waiting, told):
        events, letters = _parse(stretch, records, wanted, translate)
        shard = stretch.place.partition % settings.shards
        total.add(await _apply(ledger, events, letters, shard=shard))
    return total


async def _in_time(
    settings: Settings, waiting: Sequence[Stretch], told: Callable[[int], None]
) -> AsyncIterator[tuple[Stretch, list[ConsumerRecord]]]:
    """Batches of one partition each, the earliest published first."""
    consumer = AIOKafkaConsumer(**client_arguments(settings), isolation_level="read_committed")
    left = list(waiting)
    try:
        await consumer.start()
        for topic in {stretch.place.topic for stretch in left}:
            await consumer._client._wait_on_metadata(topic)
        while left:
            for stretch in left:
                await _fill(consumer, stretch, told)
            left = [stretch for stretch in left if stretch.records]
            if left:
                stretch = min(left, key=lambda each: each.time)
                batch = stretch.records[: settings.batch_rows_max]
                del stretch.records[: settings.batch_rows_max]
                yield stretch, batch
    finally:
        await consumer.stop()


async def _fill(consumer: AIOKafkaConsumer, stretch: Stretch, told: Callable[[int], None]) -> None:
    """Fetch when nothing fetched is left; leaves nothing only where the stretch ends."""
    patience = asyncio.timeout(STALLED_SECONDS)
    try:
        async with patience:
            while not stretch.records and stretch.offset < stretch.end:
                try:
                    chunk = await read_by_hand(consumer, stretch.place, stretch.offset)
                except StaleMetadata:
                    await asyncio.sleep(_EMPTY_SECONDS)
                    continue
                if chunk.next_offset == stretch.offset:
                    await asyncio.sleep(_EMPTY_SECONDS)
                stretch.records = [record for record in chunk.records if record.offset < stretch.end]
                told(min(chunk.next_offset, stretch.end) - stretch.offset)
                stretch.offset = chunk.next_offset
    except TimeoutError as fault:
        place = f"{stretch.place.topic}[{stretch.place.partition}]"
        raise KafkaError(f"{place} gave nothing from {stretch.offset} on for {STALLED_SECONDS:g} s") from fault


def _parse(
    stretch: Stretch, records: Sequence[ConsumerRecord], wanted: Wanted, translate: Translate
) -> tuple[list[Event], list[DeadLetter]]:
    events: list[Event] = []
    letters: list[DeadLetter] = []
    stream = next(name for name in READ_TOPICS if stretch.place.topic.endswith(name))
    for raw in records:
        made = read_one(raw, stretch.topic_id, stream, translate)
        if isinstance(made, DeadLetter):
            letters += [made] if wanted.takes_letters else []
        elif wanted.takes(made):
            events.append(made)
    return events, letters


async def _apply(ledger: Ledger, events: Sequence[Event], letters: Sequence[DeadLetter], *, shard: int) -> BatchResult:
    """One database transaction a shard; `shard` is the partition's own, which has its dead letters."""
    result = BatchResult()
    rest: Sequence[Event] = events
    while rest:
        by_shard: defaultdict[int, list[Event]] = defaultdict(list)
        for event, lives_on in zip(rest, await ledger.shards_of(rest), strict=True):
            by_shard[lives_on].append(event)
        rest = []
        for lives_on, ours in by_shard.items():
            try:
                result.add(await ledger.apply(ours, shard=lives_on))
            except TenantMovedError:
                # Another process has just put a tenant elsewhere: resolve again.
                rest = [*rest, *ours]
    wanted = [*letters, *result.unstorable]
    result.unstorable = []
    if wanted:
        done = await ledger.apply((), shard=shard, dead_letters=wanted)
        done.duplicates += len(wanted) - done.dead_letters
        result.add(done)
    return result
