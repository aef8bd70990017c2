"""The one producer of a shard: its transactions, each under an epoch of its own, so that no late request can end it.

Which of Kafka's two transaction protocols is spoken is for the cluster to say: its feature `transaction.version`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, LeaderNotAvailableError, for_code
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition as AiokafkaPartition

from infra.faultpoints import reached
from infra.kafka import protocol_v2
from infra.kafka.connection import client_arguments
from infra.kafka.protocol_v1 import ProtocolV1
from infra.kafka.protocol_v2 import ProtocolV2
from infra.kafka.protocols import (
    RETRY_SECONDS,
    TRANSACTION_SECONDS,
    TRANSACTION_TIMEOUT_MS,
    Batches,
    TopicPartition,
    TransactionProtocol,
)
from infra.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

START_SECONDS = 10.0
DISCARD_SECONDS = 1.0
# Below the broker's default max.message.bytes of 1,048,588, whatever compression makes of it.
BATCH_BYTES_MAX = 1_000_000

COMPRESSION = "zstd"
_CODECS = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


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
            retry_backoff_ms=int(RETRY_SECONDS * 1000),
        )
        self._protocol: TransactionProtocol = ProtocolV1(self._producer, transactional_id)
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # aiokafka connects again and says nothing.
        self._producer.client._on_connection_closed = self._hear_of_loss

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
                # Whatever was lost before: the coordinator has ended all that there was.
                self._lost = asyncio.get_running_loop().create_future()
                if await protocol_v2.is_spoken(self._producer, self.transactional_id):
                    self._protocol = ProtocolV2(self._producer, self.transactional_id, self._lost)
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

    @property
    def raises_epochs(self) -> bool:
        """Whether the end of a transaction is what raises the epoch: its markers then have the next one."""
        return isinstance(self._protocol, ProtocolV2)

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
            await self._protocol.begin()
            reached("relay.begun")
            await self._protocol.deliver(batches)
            reached("relay.sent")
            await self._protocol.commit()
            reached("relay.committed")

    async def next_epoch(self) -> None:
        """Leave the epoch of the transaction just committed. Raises: ProducerFenced, KafkaError, TimeoutError."""
        await self._protocol.next_epoch()
        reached("relay.epoch")

    async def unless_lost(self, upcoming: asyncio.Future[T]) -> T:
        """What this comes to. Raises: KafkaConnectionError, as soon as the coordinator's connection was lost.

        It answers the end of a transaction before the markers are written, and one that died may leave some out.
        """
        waiting: set[asyncio.Future[Any]] = {upcoming, self._lost}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._lost.done():
            raise KafkaConnectionError("the connection to the transaction coordinator was lost")
        return await upcoming

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

    def _hear_of_loss(self, connection: Any, reason: CloseReason | None) -> None:
        client = self._producer.client
        for (_, group), each in client._conns.items():
            orderly = reason in (CloseReason.IDLE_DROP, CloseReason.SHUTDOWN)
            if each is connection and group is ConnectionGroup.COORDINATION and not orderly and not self._lost.done():
                self._lost.set_result(None)
        type(client)._on_connection_closed(client, connection, reason)

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
