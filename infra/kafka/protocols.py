"""What both of Kafka's transaction protocols have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder

TopicPartition = tuple[str, int]
Batches = Mapping[TopicPartition, Sequence[BatchBuilder]]

# We give up before the broker does.
TRANSACTION_SECONDS = 8.0
# An abandoned transaction holds back what others committed to the same partitions until it times out.
TRANSACTION_TIMEOUT_MS = 10_000
RETRY_SECONDS = 0.02
# aiokafka has no name for it.
PRODUCER_FENCED = 90


class TransactionProtocol(Protocol):
    """How a producer's transactions are told to the broker, one after the other. After any exception it is in doubt."""

    async def begin(self) -> None:
        """Begin a transaction."""

    async def deliver(self, batches: Batches) -> None:
        """Send these batches, a partition's in their order; all are in the broker's log when this returns.

        Raises: ProducerFenced, KafkaError.
        """

    async def commit(self) -> None:
        """End the transaction. Raises: ProducerFenced, KafkaError; whether it was committed is then not known."""

    async def next_epoch(self) -> None:
        """Leave the epoch of the transaction just committed. Raises: ProducerFenced, KafkaError."""


async def ask_coordinator(producer: AIOKafkaProducer, transactional_id: str, request: Any) -> Any:
    """The answer of the transactional id's coordinator. Raises: KafkaError."""
    node = await producer._sender._find_coordinator(CoordinationType.TRANSACTION, transactional_id)
    return await producer.client.send(node, request, group=ConnectionGroup.COORDINATION)


async def check_partition(producer: AIOKafkaProducer, place: TopicPartition) -> None:
    """Raises: UnknownTopicOrPartitionError, when the topic hasn't got it."""
    topic, partition = place
    if partition not in await producer.partitions_for(topic):
        raise UnknownTopicOrPartitionError(f"{topic} has no partition {partition}")


def refusal(error_code: int, where: str = "") -> KafkaError:
    """What a broker's final no raises: ProducerFenced where another one writes under our transactional id."""
    error = for_code(error_code)
    if error is InvalidProducerEpoch or error_code == PRODUCER_FENCED:
        return ProducerFenced()
    fault: KafkaError = error(where) if where else error()
    return fault


async def all_of(awaitables: Sequence[Any]) -> list[Any]:
    """Await every one; raise the first exception as soon as there is one, and let none of the others go unheard."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return await asyncio.gather(*futures)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
