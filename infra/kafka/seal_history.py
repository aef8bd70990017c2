"""What the seals of a shard tell of its outputs, read backwards to the last point that the books have, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from infra.kafka.connection import client_arguments
from infra.kafka.producer import TransactionalProducer, new_batch
from infra.kafka.seals import SEAL_TYPE, Seal, decode_seal, encode_seal
from infra.settings import Settings

WINDOW_RECORDS = 1_000
WINDOW_SECONDS = 30.0
_WAIT_MS = 100

Heads = Callable[[Sequence[int]], Awaitable[Mapping[int, bytes]]]
"""The heads that the books have after these seqs; a seq that is no batch's end is left out."""


@dataclass(slots=True)
class SealHistory:
    """The seals of a shard that count, from the newest back to `common`, the last that the books have, too.

    A seal of a later epoch takes back what earlier ones sealed from its own `seq_first` on.
    """

    newest: Seal | None = None
    common: Seal | None = None
    common_ms: int | None = None
    """The timestamp of `common`: later outputs have no earlier one."""
    following: Seal | None = None
    """The first that counts after `common`."""
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By epoch: the outputs that are sealed after `common` and count."""
    stranger_on_top: bool = False
    """Whether the last record is no seal of this shard."""
    _limit: float = float("inf")
    _newer: Seal | None = None

    def add(self, seal: Seal) -> int:
        """Take the next older seal; returns up to where it counts."""
        if self._newer is not None and seal.epoch < self._newer.epoch:
            self._limit = min(self._limit, self._newer.seq_first - 1)
        self._newer = seal
        self.newest = self.newest or seal
        return int(min(seal.seq_last, self._limit))

    def keep(self, seal: Seal, end: int) -> None:
        """Note a seal that the books don't have."""
        if end < seal.seq_first:
            return
        self.following = seal
        _, last = self.spans.get(seal.epoch, (0, end))
        self.spans[seal.epoch] = (seal.seq_first, max(last, end))

    def count_after(self, seq: int) -> int:
        """How many sealed outputs that count stand after seq."""
        return sum(max(0, last - max(first, seq + 1) + 1) for first, last in self.spans.values())

    def has(self, epoch: int, seq: int) -> bool:
        """Whether an output is one of `spans`."""
        first, last = self.spans.get(epoch, (1, 0))
        return first <= seq <= last


@asynccontextmanager
async def seals_reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer for `seal_history`, gone afterwards."""
    consumer = AIOKafkaConsumer(
        **client_arguments(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_WAIT_MS,
    )
    await consumer.start()
    # Its background task must have begun, or stopping it raises.
    await asyncio.sleep(0)
    try:
        yield consumer
    finally:
        await consumer.stop()


async def seal_history(consumer: AIOKafkaConsumer, settings: Settings, shard: int, heads: Heads) -> SealHistory:
    """Read the seals of a shard backwards until one is in the books, or none is left.

    Call it while no relay runs. Raises: TimeoutError while somebody's transaction is open, KafkaError.
    """
    place = TopicPartition(settings.topic("seals"), shard)
    consumer.assign([place])
    start = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    history, first_record = SealHistory(), True
    async for records in _windows(consumer, place, start, end):
        seals = [(record, _seal_of(record, shard)) for record in records]
        if seals and first_record:
            history.stranger_on_top, first_record = seals[0][1] is None, False
        known = await heads([seal.seq_last for _, seal in seals if seal is not None])
        for record, seal in seals:
            if seal is None or (history._newer is not None and seal.epoch > history._newer.epoch):
                continue
            counts_to = history.add(seal)
            if counts_to == seal.seq_last and known.get(counts_to) == seal.head_hash:
                history.common, history.common_ms = seal, record.timestamp
                return history
            history.keep(seal, counts_to)
    return history


async def newest_seal(consumer: AIOKafkaConsumer, settings: Settings, shard: int) -> Seal | None:
    """The last record that is a seal of this shard. Raises: TimeoutError, KafkaError."""
    place = TopicPartition(settings.topic("seals"), shard)
    consumer.assign([place])
    start = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    async for records in _windows(consumer, place, start, end):
        for record in records:
            if (seal := _seal_of(record, shard)) is not None:
                return seal
    return None


async def _windows(
    consumer: AIOKafkaConsumer, place: TopicPartition, start: int, end: int
) -> AsyncIterator[list[ConsumerRecord]]:
    """The records of a partition, the newest first, some at a time."""
    window = WINDOW_RECORDS
    while end > start:
        begin = max(start, end - window)
        async with asyncio.timeout(WINDOW_SECONDS):
            records = await _read(consumer, place, begin, end)
        yield records[::-1]
        end, window = begin, min(window * 10, 100_000)


async def _read(consumer: AIOKafkaConsumer, place: TopicPartition, begin: int, end: int) -> list[ConsumerRecord]:
    consumer.seek(place, begin)
    found: list[ConsumerRecord] = []
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(place, timeout_ms=_WAIT_MS)).values():
            found += [record for record in records if record.offset < end]
    return found


def _seal_of(record: ConsumerRecord, shard: int) -> Seal | None:
    try:
        seal = decode_seal(record.value or b"")
    except ValueError:
        return None
    return seal if seal.shard == shard else None


async def fence(settings: Settings, transactional_id: str) -> None:
    """Shut out whoever writes under this transactional id, and end what they left open."""
    producer = TransactionalProducer(settings, transactional_id)
    try:
        await producer.start()
    finally:
        await producer.discard()


async def publish_seal(settings: Settings, transactional_id: str, seal: Seal, recorded_at: datetime) -> None:
    """Publish a seal alone, which becomes the shard's last. Raises: KafkaError, TimeoutError."""
    batch = new_batch()
    batch.append(
        timestamp=int(recorded_at.timestamp() * 1000),
        key=b"%d" % seal.shard,
        value=encode_seal(seal, recorded_at),
        headers=[("content-type", b"application/cloudevents+json"), ("ce_type", SEAL_TYPE.encode())],
    )
    producer = TransactionalProducer(settings, transactional_id)
    try:
        await producer.start()
        await producer.publish({(settings.topic("seals"), seal.shard): [batch]})
    finally:
        await producer.discard()
