"""Markers of transactions, as they stand in a partition: no consumer shows them."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.control_record import ControlRecord
from aiokafka.record.default_records import _DefaultRecordBatchPy

from infra.kafka.by_hand import FETCH_BYTES, _slices

_COMMIT = ControlRecord(0, 1)


async def was_committed_in(
    consumer: AIOKafkaConsumer,
    places: Iterable[TopicPartition],
    *,
    since_ms: int,
    producer: tuple[int, int],
    raising: bool,
) -> bool:
    """Whether the transaction of this producer id and epoch was committed in one of these partitions.

    Reads them from the first record on that is as late as `since_ms`: its marker is, though its own records needn't be.
    A producer of ours has an epoch for each of its transactions. The marker that ends one has the same epoch, or, where
    the end of a transaction is what raises it (KIP-890, now if `raising`), the next. Raises: KafkaError.
    """
    places = list(places)
    starts = await consumer.offsets_for_times(dict.fromkeys(places, since_ms))
    ends = await consumer.end_offsets(places)
    for place, start in starts.items():
        if start is None:
            continue
        if await _end_in(consumer, place, start.offset, ends[place], producer, raising=raising) == _COMMIT:
            return True
    return False


async def _end_in(
    consumer: AIOKafkaConsumer,
    place: TopicPartition,
    offset: int,
    end: int,
    producer: tuple[int, int],
    *,
    raising: bool,
) -> ControlRecord | None:
    """The marker of this transaction, or of the next, which only follows a commit; None where there is neither."""
    producer_id, epoch = producer
    begun = False
    while offset < end:
        batches, offset = await _batches(consumer, place, offset)
        for batch in batches:
            if batch.producer_id != producer_id:
                continue
            if not batch.is_control_batch:
                begun |= batch.producer_epoch == epoch
            # One of the same epoch may as well have ended the transaction before.
            elif batch.producer_epoch == epoch + 1 or (batch.producer_epoch == epoch and (begun or not raising)):
                return ControlRecord.parse(next(iter(batch)).key)
    return None


async def _batches(
    consumer: AIOKafkaConsumer, place: TopicPartition, offset: int
) -> tuple[list[_DefaultRecordBatchPy], int]:
    """What one fetch gives, markers and open transactions included, and the offset after it."""
    client = consumer._client
    node = client.cluster.leader_for_partition(place)
    if node is None or node < 0:
        raise LeaderNotAvailableError(place)
    asked = [(place.topic, [(place.partition, offset, FETCH_BYTES)])]
    fetch = FetchRequest(100, 1, FETCH_BYTES, READ_UNCOMMITTED, asked, rack_id="")
    response = await client.send(node, fetch)
    ((_, ((_, error_code, _, *rest),)),) = response.topics
    if error_code:
        raise for_code(error_code)(place)
    batches = [_DefaultRecordBatchPy(data) for data in _slices(rest[-1])]
    if not batches:
        raise KafkaError(f"{place.topic}[{place.partition}] gave nothing at {offset}, before its end")
    return batches, int(batches[-1].next_offset)
