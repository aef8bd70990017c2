"""Seals: what the relay says about each of its transactions, and where it reads how far it came."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.kafka.connection import client_arguments
from infra.settings import Settings

SEAL_TYPE = "ledger.sealed.v1"
READ_SECONDS = 10.0
_FETCH_WAIT_MS = 100
# The last seal is a few offsets before the end: each commit takes one, each aborted transaction two.
_LOOK_BACK = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """All outputs of a shard from seq_first to seq_last are published; counts are by full topic name."""

    epoch: int
    shard: int
    seq_first: int
    seq_last: int
    counts: Mapping[str, int]
    head_hash: bytes


def encode_seal(seal: Seal, recorded_at: datetime) -> bytes:
    """The seal as a structured CloudEvent. Its id is none of an output: they can be told from doubles by it."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"seal-{seal.epoch}-{seal.shard}-{seal.seq_last}",
            "source": "ledgerstream",
            "type": SEAL_TYPE,
            "time": recorded_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
            "data": {
                "epoch": seal.epoch,
                "shard": seal.shard,
                "seq_first": seal.seq_first,
                "seq_last": seal.seq_last,
                "counts": dict(seal.counts),
                "head_hash": seal.head_hash.hex(),
            },
        }
    )


def decode_seal(value: bytes) -> Seal:
    """Raises: ValueError when this is no seal."""
    try:
        data = orjson.loads(value)["data"]
        return Seal(**{**data, "head_hash": bytes.fromhex(data["head_hash"])})
    except (KeyError, TypeError) as fault:
        raise ValueError(f"not a seal: {value[:200]!r}") from fault


async def read_last_seal(settings: Settings, shard: int) -> Seal | None:
    """The last committed seal of a shard, or None if there never was one.

    Call it when nobody else can write a seal of this shard: after `TransactionalProducer.start`. Reads up to the
    log's end, not only to the last stable offset: a seal behind somebody's open transaction counts too.
    Raises: TimeoutError while such a transaction is open, KafkaError, ValueError when a record is no seal.
    """
    place = TopicPartition(settings.topic("seals"), shard)
    consumer = AIOKafkaConsumer(
        **client_arguments(settings),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
    )
    async with asyncio.timeout(READ_SECONDS):
        await consumer.start()
        try:
            consumer.assign([place])
            end = await _log_end(settings, place)
            start = (await consumer.beginning_offsets([place]))[place]
            return await _search_backwards(consumer, place, start, end)
        finally:
            await consumer.stop()


async def _log_end(settings: Settings, place: TopicPartition) -> int:
    """The end of the log, open transactions included."""
    consumer = AIOKafkaConsumer(**client_arguments(settings), isolation_level="read_uncommitted")
    await consumer.start()
    try:
        offsets = await consumer.end_offsets([place])
        return int(offsets[place])
    finally:
        await consumer.stop()


async def _search_backwards(consumer: AIOKafkaConsumer, place: TopicPartition, start: int, end: int) -> Seal | None:
    look_back = _LOOK_BACK
    while end > start:
        begin = max(start, end - look_back)
        last = await _last_value(consumer, place, begin, end)
        if last is not None:
            return decode_seal(last)
        if begin == start:
            return None
        look_back *= 10
    return None


async def _last_value(consumer: AIOKafkaConsumer, place: TopicPartition, begin: int, end: int) -> bytes | None:
    """The last committed record's value from `begin` up to `end`."""
    consumer.seek(place, begin)
    last: bytes | None = None
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(place, timeout_ms=_FETCH_WAIT_MS)).values():
            for record in records:
                last = record.value or b""
    return last
