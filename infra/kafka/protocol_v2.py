"""Kafka's newer transaction protocol (KIP-890, brokers from 4.0 on): two requests instead of four.

The broker adds partitions to the transaction when it is sent their first batch, and the end of a transaction gives the
epoch of the next one: whatever of an earlier one comes late fails with InvalidProducerEpoch, by the protocol itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    DuplicateSequenceNumber,
    KafkaConnectionError,
    KafkaError,
    NoError,
    NotCoordinatorError,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import PidAndEpoch
from aiokafka.structs import TopicPartition as AiokafkaPartition

from infra.kafka.protocols import (
    RETRY_SECONDS,
    TRANSACTION_SECONDS,
    Batches,
    TopicPartition,
    all_of,
    ask_coordinator,
    check_partition,
    refusal,
)
from infra.kafka.requests_transactions import EndTxn, Features, Produce, feature_levels

FEATURE = "transaction.version"
LEVEL = 2
# The event loop gets its turn after so many bytes were compressed and summed.
BYTES_A_TURN = 256 * 1024
_TIMEOUT_MS = int(TRANSACTION_SECONDS * 1000)
_SENT_AGAIN = (ConcurrentTransactions, CoordinatorLoadInProgressError)
_COORDINATOR_GONE = (NotCoordinatorError, CoordinatorNotAvailableError)


class ProtocolV2:
    """The transactions of one producer of aiokafka's, which was started, and never sends anything itself."""

    def __init__(self, producer: AIOKafkaProducer, transactional_id: str, lost: asyncio.Future[None]) -> None:
        """`lost`: done once the coordinator's connection was lost, which is a doubt."""
        self._lost = lost
        self._producer = producer
        self._client = producer.client
        self._sender = producer._sender
        self._manager = producer._txn_manager
        self._transactional_id = transactional_id
        self._sequences: defaultdict[TopicPartition, int] = defaultdict(int)

    async def begin(self) -> None:
        """Nothing is to be said: the first batch begins it. Each epoch counts its batches from 0."""
        self._sequences.clear()

    async def deliver(self, batches: Batches) -> None:
        """Send these batches, a partition's in their order; all are in the broker's log when this returns.

        A batch that was on its way when a connection broke is sent again: the broker knows it by its number.
        Raises: ProducerFenced, KafkaError.
        """
        left = {place: deque(queue) for place, queue in batches.items() if queue}
        for place in left:
            await check_partition(self._producer, place)
        while left:
            self._check_coordinator()
            by_leader: defaultdict[int | None, list[TopicPartition]] = defaultdict(list)
            for place in left:
                by_leader[self._client.cluster.leader_for_partition(AiokafkaPartition(*place))].append(place)
            sent = [self._send(node, {place: left[place][0] for place in of}) for node, of in by_leader.items()]
            done = [place for places in await all_of(sent) for place in places]
            for place in done:
                batch = left[place].popleft()
                self._sequences[place] += batch.record_count()
                if not left[place]:
                    del left[place]
            if not done:
                await asyncio.sleep(RETRY_SECONDS)

    async def commit(self) -> None:
        """End the transaction; what comes next has the next epoch. Raises: ProducerFenced, KafkaError."""
        while True:
            try:
                answer = await self._ask_coordinator(EndTxn(self._transactional_id, *self._epoch, commit=True))
            except KafkaError as fault:
                # Whether it was ended isn't known. Asked again, the broker answers what it did.
                if self._lost.done() or not _is_away(fault):
                    raise
                self._sender._coordinator_dead(CoordinationType.TRANSACTION)
            else:
                error = for_code(answer.error_code)
                if error is NoError:
                    self._manager._pid_and_epoch = PidAndEpoch(answer.producer_id, answer.producer_epoch)
                    return
                if error in _COORDINATOR_GONE:
                    self._sender._coordinator_dead(CoordinationType.TRANSACTION)
                elif error not in _SENT_AGAIN:
                    raise refusal(answer.error_code)
            await asyncio.sleep(RETRY_SECONDS)

    async def next_epoch(self) -> None:
        """Nothing is left to ask for. A broker that still writes the markers holds up the first batch that is sent."""

    @property
    def _epoch(self) -> tuple[int, int]:
        return self._manager.producer_id, self._manager.producer_epoch

    async def _send(self, node: int | None, batches: dict[TopicPartition, BatchBuilder]) -> list[TopicPartition]:
        """Send one batch a partition to their leader; returns those that it has, the others are for another time."""
        if node is None or node < 0:
            await self._client.force_metadata_update()
            return []
        records, bytes_built = {}, 0
        for place, batch in batches.items():
            if batch._buffer is None:
                batch._set_producer_state(*self._epoch, self._sequences[place])
            records[place] = batch._build()
            bytes_built += len(records[place])
            if bytes_built > BYTES_A_TURN:
                bytes_built = 0
                await asyncio.sleep(0)
        try:
            answer = await self._client.send(node, Produce(self._transactional_id, _TIMEOUT_MS, records))
        except KafkaError as fault:
            if not _is_away(fault):
                raise
            await self._client.force_metadata_update()
            return []
        return await self._taken(answer)

    async def _taken(self, answer: Any) -> list[TopicPartition]:
        """Which of the partitions have their batch now. Raises: ProducerFenced, KafkaError."""
        taken, moved = [], False
        for topic, partitions, _ in answer.topics:
            for partition, error_code, *_, message, _ in partitions:
                error = for_code(error_code)
                if error in (NoError, DuplicateSequenceNumber):
                    taken.append((topic, partition))
                elif error in _SENT_AGAIN or error.retriable:
                    moved |= bool(getattr(error, "invalid_metadata", False))
                else:
                    raise refusal(error_code, f"{topic}[{partition}]: {message}")
        if moved:
            await self._client.force_metadata_update()
        return taken

    def _check_coordinator(self) -> None:
        """Nothing may be added to a transaction whose partitions another one may have been left open in.

        That one was committed, and this one's end would be its end. Raises: KafkaConnectionError.
        """
        if self._lost.done():
            raise KafkaConnectionError("the connection to the transaction coordinator was lost")

    async def _ask_coordinator(self, request: Any) -> Any:
        self._check_coordinator()
        return await ask_coordinator(self._producer, self._transactional_id, request)


async def is_spoken(producer: AIOKafkaProducer, transactional_id: str) -> bool:
    """Whether the cluster has agreed on this protocol. Raises: KafkaError."""
    try:
        answer = await ask_coordinator(producer, transactional_id, Features())
    except NotImplementedError:
        # aiokafka's word for a broker that is older than the request.
        return False
    return feature_levels(answer).get(FEATURE, 0) >= LEVEL


def _is_away(fault: KafkaError) -> bool:
    return bool(getattr(fault, "retriable", False))
