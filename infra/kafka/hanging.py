"""Ends transactions of a shard that its coordinator has ended, but that are still open in their partitions.

A broker that was killed between a transaction's commit and its markers has to write them when it starts again. Kafka
4.3 leaves them out for a partition that has no leader at that moment ("likely deleted already and hence can be
skipped") and takes the transaction for done. Nobody ends it then, ever: no read_committed consumer gets past it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, NoError, for_code

from infra.kafka.connection import client_arguments
from infra.kafka.markers import was_committed_in
from infra.kafka.producer import TransactionalProducer
from infra.kafka.requests_markers import DescribeProducers, WriteTxnMarkers
from infra.kafka.seals import Seal, decode_seal
from infra.kafka.transactions import ShardStoppedError
from infra.settings import Settings
from schemas.topics import OUTPUT_TOPICS

log = logging.getLogger(__name__)

READ_SECONDS = 30.0
_FETCH_WAIT_MS = 100
# The broker's clock gives markers their time, the database's our records theirs.
_CLOCK_SKEW_MS = 5 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hanging:
    """A transaction that is open in a partition though its producer has a later epoch."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    start_offset: int

    @property
    def transaction(self) -> tuple[int, int]:
        """An epoch is of one transaction."""
        return self.producer_id, self.producer_epoch


async def end_hanging(settings: Settings, producer: TransactionalProducer, shard: int) -> None:
    """End what a broker left open of this shard, as its coordinator had decided; mostly there is nothing.

    Call it after `TransactionalProducer.start`, which returns only when the coordinator takes every transaction of
    this producer for ended: what is still open then hangs for ever.
    Raises: KafkaError, TimeoutError, ShardStoppedError without the right to end it.
    """
    found = await find_hanging(settings, producer)
    for transaction in sorted({hanging.transaction for hanging in found.values()}):
        its = {place: hanging for place, hanging in found.items() if hanging.transaction == transaction}
        await _end_everywhere(settings, producer, shard, its)


async def _end_everywhere(
    settings: Settings, producer: TransactionalProducer, shard: int, found: dict[TopicPartition, Hanging]
) -> None:
    places = ", ".join(f"{place.topic}[{place.partition}]@{hanging.start_offset}" for place, hanging in found.items())
    async with asyncio.timeout(READ_SECONDS):
        commit = await _was_committed(settings, producer, shard, found)
    for place, hanging in found.items():
        await _end(producer, shard, place, hanging, commit=commit)
    how = "committed" if commit else "aborted"
    log.warning("the relay of shard %d: Kafka left a transaction open (%s): %s it", shard, places, how)


async def find_hanging(settings: Settings, producer: TransactionalProducer) -> dict[TopicPartition, Hanging]:
    """What is open of this producer's former epochs, by partition of the output topics."""
    producer_id, epoch = producer.epoch
    found: dict[TopicPartition, Hanging] = {}
    for node, partitions in (await _by_leader(settings, producer)).items():
        answer = await producer.ask(node, DescribeProducers(partitions))
        for topic, described, _ in answer.topics:
            for partition, error_code, _, writers, _ in described:
                if (error := for_code(error_code)) is not NoError:
                    # Without the right to look (READ) there is nothing that we could do.
                    log.debug("%s[%s]: open transactions can't be looked up (%r)", topic, partition, error)
                    continue
                for theirs, their_epoch, _, _, coordinator_epoch, start, _ in writers:
                    if theirs == producer_id and their_epoch < epoch and start >= 0:
                        found[TopicPartition(topic, partition)] = Hanging(
                            producer_id=theirs,
                            producer_epoch=their_epoch,
                            coordinator_epoch=max(coordinator_epoch, 0),
                            start_offset=start,
                        )
    return found


async def _by_leader(settings: Settings, producer: TransactionalProducer) -> dict[int, dict[str, list[int]]]:
    by_leader: defaultdict[int, dict[str, list[int]]] = defaultdict(dict)
    for name in OUTPUT_TOPICS:
        topic = settings.topic(name)
        for partition in sorted(await producer.partitions_for(topic)):
            node = producer.leader_of(TopicPartition(topic, partition))
            by_leader[node].setdefault(topic, []).append(partition)
    return by_leader


async def _was_committed(
    settings: Settings, ours_now: TransactionalProducer, shard: int, found: dict[TopicPartition, Hanging]
) -> bool:
    """Whether the outputs of the transaction count, told by the streams alone: the coordinator has forgotten it.

    Where it was committed in any partition it is committed in all. Where nothing of it can be seen by anybody, either
    end is right for subscribers: what is there and whole is kept, since the relay may have been told that it was
    committed; else it is aborted and published again.
    """
    consumer = AIOKafkaConsumer(
        **client_arguments(settings),
        isolation_level="read_uncommitted",
        enable_auto_commit=False,
        fetch_max_wait_ms=_FETCH_WAIT_MS,
    )
    try:
        await consumer.start()
        places = await _places(settings, consumer)
        records = await _records(consumer, found)
        ours = {(record.topic, place[2]) for record in records if (place := _place(record)) and place[1] == shard}
        seal = _first_seal(records, TopicPartition(settings.topic("seals"), shard))
        if seal is not None and _names(seal, ours):
            return True
        hanging = next(iter(found.values()))
        return await was_committed_in(
            consumer,
            [place for place in places if place not in found],
            since_ms=min(record.timestamp for record in records) - _CLOCK_SKEW_MS,
            producer=hanging.transaction,
            raising=ours_now.raises_epochs,
        )
    finally:
        await consumer.stop()


async def _places(settings: Settings, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
    """Every partition of the output topics, whose leaders the consumer then knows."""
    topics = [settings.topic(name) for name in OUTPUT_TOPICS]
    return [
        TopicPartition(topic, partition)
        for topic in topics
        for partition in sorted(await consumer._client._wait_on_metadata(topic))
    ]


def _first_seal(records: Iterable[ConsumerRecord], place: TopicPartition) -> Seal | None:
    for record in records:
        if (record.topic, record.partition) == place:
            return decode_seal(record.value or b"")
    return None


def _names(seal: Seal, ours: set[tuple[str, int]]) -> bool:
    """Whether all that the seal counts is among these."""
    hanging: defaultdict[str, int] = defaultdict(int)
    for topic, seq in ours:
        if seal.seq_first <= seq <= seal.seq_last:
            hanging[topic] += 1
    return dict(hanging) == dict(seal.counts)


def _place(record: ConsumerRecord) -> tuple[int, int, int] | None:
    headers = dict(record.headers)
    try:
        return int(headers["ledger-epoch"]), int(headers["ledger-shard"]), int(headers["ledger-seq"])
    except (KeyError, ValueError):
        return None


async def _records(consumer: AIOKafkaConsumer, found: dict[TopicPartition, Hanging]) -> list[ConsumerRecord]:
    """All records from where the transaction begins in each partition, others' among them, open or not."""
    consumer.assign(list(found))
    ends = await consumer.end_offsets(list(found))
    for place, hanging in found.items():
        consumer.seek(place, hanging.start_offset)
    records: list[ConsumerRecord] = []
    while any([await consumer.position(place) < ends[place] for place in found]):
        for some in (await consumer.getmany(timeout_ms=_FETCH_WAIT_MS)).values():
            records += some
    return records


async def _end(
    producer: TransactionalProducer, shard: int, place: TopicPartition, hanging: Hanging, *, commit: bool
) -> None:
    marker = WriteTxnMarkers(
        place,
        commit=commit,
        producer_id=hanging.producer_id,
        producer_epoch=hanging.producer_epoch,
        coordinator_epoch=hanging.coordinator_epoch,
    )
    answer = await producer.ask(producer.leader_of(place), marker)
    error = _error_of(answer)
    if error is ClusterAuthorizationFailedError:
        raise ShardStoppedError(
            f"shard {shard}: Kafka left a transaction open in {place.topic}[{place.partition}]; to end it the relay "
            "needs the right CLUSTER_ACTION, or see docs/operating.md, A transaction hangs"
        )
    if error is not NoError:
        raise error


def _error_of(answer: Any) -> type[KafkaError]:
    codes = [code for _, topics, _ in answer.markers for _, marked, _ in topics for _, code, _ in marked]
    kind: type[KafkaError] = for_code(next((code for code in codes if code), 0))
    return kind
