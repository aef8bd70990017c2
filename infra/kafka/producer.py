"""Kafka transactions that a late request of an earlier one can't end: each runs under a producer epoch of its own.

aiokafka speaks the protocol in which an `EndTxn` that was held up in the network commits or aborts the transaction
after the one it was meant for (KAFKA-17754). After each commit we ask for the next epoch, naming the one we have:
whatever comes late then fails with InvalidProducerEpoch, and a producer that was fenced finds out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    InvalidProducerEpoch,
    LeaderNotAvailableError,
    NoError,
    ProducerFenced,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import PidAndEpoch
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition as AiokafkaPartition

from infra.faultpoints import reached
from infra.kafka.connection import client_arguments
from infra.kafka.requests import NextProducerEpoch
from infra.settings import Settings

log = logging.getLogger(__name__)

# An abandoned transaction holds back what others committed to the same partitions until it times out.
TRANSACTION_TIMEOUT_MS = 10_000
# We give up before the broker does.
TRANSACTION_SECONDS = 8.0
START_SECONDS = 10.0
DISCARD_SECONDS = 1.0
MARKERS_SECONDS = 0.001
RETRY_BACKOFF_MS = 20
# Below the broker's default max.message.bytes of 1,048,588, whatever compression makes of it.
BATCH_BYTES_MAX = 1_000_000
_PRODUCER_FENCED = 90

COMPRESSION = "zstd"
_CODECS = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

TopicPartition = tuple[str, int]
Batches = Mapping[TopicPartition, Sequence[BatchBuilder]]


def new_batch(compression: str | None = COMPRESSION) -> BatchBuilder:
    """An empty batch for a transaction; it may be filled before there is a producer to send it."""
    return BatchBuilder(BATCH_BYTES_MAX, _CODECS[compression], is_transactional=True)


class TransactionalProducer:
    """The one producer that may write under its transactional id.

    After any exception of any method, and after a cancelled one, it is in doubt: `discard` it and start another.
    """

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._producer = AIOKafkaProducer(
            **client_arguments(settings),
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=int(TRANSACTION_SECONDS * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )

    async def start(self) -> None:
        """Fence whoever wrote under this transactional id before, and end what they left open."""
        client, heard = self._producer.client, "no answer from its coordinator"
        ask = client.send

        async def send(node: int, request: Any, **options: Any) -> Any:
            # aiokafka asks again and again, and says nothing of most refusals.
            nonlocal heard
            answer = await ask(node, request, **options)
            if isinstance(request, InitProducerIdRequest) and answer.error_code:
                heard = for_code(answer.error_code).__name__
            return answer

        client.send = send
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._producer.start()
        except TimeoutError as fault:
            raise TimeoutError(f"InitProducerId: {heard}") from fault
        finally:
            client.send = ask
        reached("relay.started")

    @property
    def epoch(self) -> tuple[int, int]:
        """The producer id and epoch of the next transaction."""
        manager = self._manager
        return manager.producer_id, manager.producer_epoch

    async def partitions_for(self, topic: str) -> set[int]:
        """The numbers of a topic's partitions. Raises: UnknownTopicOrPartitionError, TimeoutError."""
        async with asyncio.timeout(TRANSACTION_SECONDS):
            partitions: set[int] = await self._producer.partitions_for(topic)
            return partitions

    def leader_of(self, place: TopicPartition) -> int:
        """The node that leads a partition. Raises: LeaderNotAvailableError, when there is none now."""
        node = self._producer.client.cluster.leader_for_partition(AiokafkaPartition(*place))
        if node is None or node < 0:
            raise LeaderNotAvailableError(f"{place[0]}[{place[1]}]")
        return int(node)

    async def ask(self, node: int, request: Any) -> Any:
        """A broker's answer. Raises: KafkaError, TimeoutError."""
        async with asyncio.timeout(TRANSACTION_SECONDS):
            return await self._producer.client.send(node, request)

    async def publish(self, batches: Batches) -> None:
        """Send these batches in one transaction; committed, every batch of it, when this returns.

        Raises: ProducerFenced, KafkaError, TimeoutError; whether it was committed is then not known.
        """
        async with asyncio.timeout(TRANSACTION_SECONDS):
            await self._producer.begin_transaction()
            reached("relay.begun")
            # commit_transaction succeeds although a send failed: each delivery is awaited before.
            await _all_of([self._send(topic_partition, queue) for topic_partition, queue in batches.items()])
            reached("relay.sent")
            await self._producer.commit_transaction()
            reached("relay.committed")

    async def next_epoch(self) -> None:
        """Leave the epoch of the transaction just committed; returns once its markers are written everywhere.

        Epochs run out after 32,766: the broker then gives a new producer id and begins again.
        """
        manager, request_seconds = self._manager, TRANSACTION_SECONDS
        request = NextProducerEpoch(
            self.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            producer_id=manager.producer_id,
            producer_epoch=manager.producer_epoch,
        )
        async with asyncio.timeout(request_seconds):
            answer = await self._ask_coordinator(request)
            while for_code(answer.error_code) is ConcurrentTransactions:
                await asyncio.sleep(MARKERS_SECONDS)
                answer = await self._ask_coordinator(request)
        error = for_code(answer.error_code)
        if error is InvalidProducerEpoch or answer.error_code == _PRODUCER_FENCED:
            raise ProducerFenced
        if error is not NoError:
            raise error
        manager._pid_and_epoch = PidAndEpoch(answer.producer_id, answer.producer_epoch)
        # A new epoch counts its batches from 0 again.
        manager._sequence_numbers.clear()
        reached("relay.epoch")

    async def discard(self) -> None:
        """Let go of it without ending its transaction: the next producer of this id does that. Never raises."""
        producer = self._producer
        producer._closed = True
        sender = producer._sender.sender_task
        if sender is not None:
            sender.cancel()
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                await producer.client.close()
        except Exception as error:
            log.debug("closing a producer of %s: %r", self.transactional_id, error)
        # The sender waits for its requests when it is cancelled; each further cancel ends one that waits for ever.
        while sender is not None and not sender.done():
            await asyncio.wait({sender}, timeout=0.05)
            sender.cancel()
        self._hear_out()

    def _hear_out(self) -> None:
        """Take note of what failed with it, or asyncio complains of exceptions that nobody asked for."""
        batches = [batch for queue in self._producer._message_accumulator._batches.values() for batch in queue]
        futures = [self._producer._sender.sender_task, self._manager._transaction_waiter]
        futures += [future for batch in batches for future in (batch.future, batch._drain_waiter)]
        for future in futures:
            if future is not None and future.done() and not future.cancelled():
                future.exception()

    @property
    def _manager(self) -> Any:
        return self._producer._txn_manager

    async def _send(self, topic_partition: TopicPartition, queue: Sequence[BatchBuilder]) -> None:
        topic, partition = topic_partition
        if partition not in await self._producer.partitions_for(topic):
            raise UnknownTopicOrPartitionError(f"{topic} has no partition {partition}")
        deliveries = [await self._producer.send_batch(batch, topic, partition=partition) for batch in queue]
        await _all_of(deliveries)

    async def _ask_coordinator(self, request: NextProducerEpoch) -> Any:
        node = await self._producer._sender._find_coordinator(CoordinationType.TRANSACTION, self.transactional_id)
        return await self._producer.client.send(node, request, group=ConnectionGroup.COORDINATION)


async def _all_of(awaitables: Sequence[Any]) -> None:
    """Await every one; raise the first exception as soon as there is one, and let none of the others go unheard."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.gather(*futures)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
