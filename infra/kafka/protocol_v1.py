"""Kafka's older transaction protocol, as aiokafka speaks it, with an epoch for each transaction.

In it an `EndTxn` that was held up in the network commits or aborts the transaction after the one it was meant for
(KAFKA-17754). After each commit we ask for the next epoch, naming the one we have: whatever comes late then fails with
InvalidProducerEpoch, and a producer that was fenced finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ConcurrentTransactions, for_code
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import PidAndEpoch

from infra.kafka.protocols import (
    TRANSACTION_SECONDS,
    TRANSACTION_TIMEOUT_MS,
    Batches,
    TopicPartition,
    all_of,
    ask_coordinator,
    check_partition,
    refusal,
)
from infra.kafka.requests import NextProducerEpoch

MARKERS_SECONDS = 0.001


class ProtocolV1:
    """The transactions of one producer of aiokafka's, which was started."""

    def __init__(self, producer: AIOKafkaProducer, transactional_id: str) -> None:
        self._producer = producer
        self._transactional_id = transactional_id

    async def begin(self) -> None:
        """Begin a transaction."""
        await self._producer.begin_transaction()

    async def deliver(self, batches: Batches) -> None:
        """Send these batches, a partition's in their order. Raises: ProducerFenced, KafkaError."""
        # commit_transaction succeeds although a send failed: each delivery is awaited before.
        await all_of([self._send(topic_partition, queue) for topic_partition, queue in batches.items()])

    async def commit(self) -> None:
        """End the transaction. Raises: ProducerFenced, KafkaError."""
        await self._producer.commit_transaction()

    async def next_epoch(self) -> None:
        """Leave the epoch of the transaction just committed; returns once its markers are written everywhere.

        Epochs run out after 32,766: the broker then gives a new producer id and begins again.
        """
        manager = self._producer._txn_manager
        request = NextProducerEpoch(
            self._transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            producer_id=manager.producer_id,
            producer_epoch=manager.producer_epoch,
        )
        async with asyncio.timeout(TRANSACTION_SECONDS):
            answer = await ask_coordinator(self._producer, self._transactional_id, request)
            while for_code(answer.error_code) is ConcurrentTransactions:
                await asyncio.sleep(MARKERS_SECONDS)
                answer = await ask_coordinator(self._producer, self._transactional_id, request)
        if answer.error_code:
            raise refusal(answer.error_code)
        manager._pid_and_epoch = PidAndEpoch(answer.producer_id, answer.producer_epoch)
        # A new epoch counts its batches from 0 again.
        manager._sequence_numbers.clear()

    async def _send(self, topic_partition: TopicPartition, queue: Sequence[BatchBuilder]) -> None:
        topic, partition = topic_partition
        await check_partition(self._producer, topic_partition)
        deliveries = [await self._producer.send_batch(batch, topic, partition=partition) for batch in queue]
        await all_of(deliveries)
