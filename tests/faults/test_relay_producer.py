"""What the relay relies on in aiokafka and the broker, pinned: so that an upgrade can't bring a loss back.

The older transaction protocol, as aiokafka speaks it; the newer has tests of its own.
"""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import (
    InvalidProducerEpoch,
    MessageSizeTooLargeError,
    NoError,
    ProducerFenced,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.transaction import EndTxnRequest, InitProducerIdRequest
from aiokafka.record import default_records

from infra.kafka import connection
from infra.kafka.producer import TransactionalProducer, new_batch
from infra.settings import Settings, SettingsError
from tests.fixtures.relay import NewProducer, books, new_producer, older_broker
from tests.fixtures.subscriber import committed

__all__ = ["books", "new_producer", "older_broker"]

COMMIT = 1
LAST_EPOCH = 32_766

# The newer protocol has tests of its own.
pytestmark = pytest.mark.usefixtures("older_broker")


def batch_of(*values: bytes) -> BatchBuilder:
    batch = new_batch()
    # Not one of long ago: the broker would delete it half a minute after its own start.
    now_ms = int(time.time() * 1000)
    for value in values:
        batch.append(timestamp=now_ms, key=b"k", value=value, headers=[])
    return batch


async def values_on(settings: Settings, topic: str) -> list[bytes]:
    return [record.value for record in await committed(settings, topic)]


# --- an EndTxn that comes late (KAFKA-17754) --------------------------------------------------------------------------


async def end_transaction_late(
    settings: Settings, producer: TransactionalProducer, pid_and_epoch: tuple[int, int]
) -> type:
    """Send the commit of a former transaction again, as a retry that was held up would; returns the broker's answer."""
    node = await producer._producer._sender._find_coordinator(CoordinationType.TRANSACTION, producer.transactional_id)
    client = AIOKafkaClient(**connection.client_arguments(settings))
    try:
        await client.bootstrap()
        late = EndTxnRequest(producer.transactional_id, *pid_and_epoch, COMMIT)
        answer = await client.send(node, late, group=ConnectionGroup.COORDINATION)
        return for_code(answer.error_code)
    finally:
        await client.close()


async def begin_half_a_transaction(settings: Settings, producer: TransactionalProducer) -> None:
    """Deliver an output, but not yet the seal that belongs to it."""
    await producer._producer.begin_transaction()
    delivery = await producer._producer.send_batch(batch_of(b"output"), settings.topic("entries"), partition=0)
    await delivery


async def test_within_one_epoch_a_late_commit_publishes_outputs_without_their_seal(
    new_producer: NewProducer, settings: Settings
) -> None:
    producer = await new_producer()
    await producer.publish({(settings.topic("seals"), 0): [batch_of(b"seal of the transaction before")]})
    used = producer.epoch
    await begin_half_a_transaction(settings, producer)
    assert await values_on(settings, "entries") == []
    assert await end_transaction_late(settings, producer, used) is NoError
    # Returns when the markers of whatever was committed are written; it aborts what wasn't.
    await producer.next_epoch()
    # This is the loss: the broker has committed what nobody committed. If this fails, Kafka has closed the gap.
    assert await values_on(settings, "entries") == [b"output"]
    assert await values_on(settings, "seals") == [b"seal of the transaction before"]


async def test_with_an_epoch_a_transaction_a_late_commit_is_refused(
    new_producer: NewProducer, settings: Settings
) -> None:
    producer = await new_producer()
    used = producer.epoch
    await producer.publish({(settings.topic("seals"), 0): [batch_of(b"seal of the transaction before")]})
    await producer.next_epoch()
    await begin_half_a_transaction(settings, producer)
    assert await end_transaction_late(settings, producer, used) is InvalidProducerEpoch
    assert await values_on(settings, "entries") == []
    # The transaction is unharmed.
    seal = await producer._producer.send_batch(batch_of(b"seal"), settings.topic("seals"), partition=0)
    await seal
    await producer._producer.commit_transaction()
    await producer.next_epoch()
    assert await values_on(settings, "entries") == [b"output"]
    assert await values_on(settings, "seals") == [b"seal of the transaction before", b"seal"]


async def test_each_transaction_has_an_epoch_of_its_own(new_producer: NewProducer, settings: Settings) -> None:
    producer = await new_producer()
    used = []
    for number in range(3):
        used.append(producer.epoch)
        await producer.publish({(settings.topic("entries"), 0): [batch_of(b"%d" % number)]})
        await producer.next_epoch()
    (producer_id, first) = used[0]
    assert used == [(producer_id, first), (producer_id, first + 1), (producer_id, first + 2)]
    assert await values_on(settings, "entries") == [b"0", b"1", b"2"]


async def test_epochs_that_run_out_lose_and_double_nothing(new_producer: NewProducer, settings: Settings) -> None:
    producer = await new_producer()
    producer_id, _ = await use_up_epochs(producer, leave=3)
    for number in range(8):
        await producer.publish({(settings.topic("entries"), 0): [batch_of(b"%d" % number)]})
        await producer.next_epoch()
    assert producer.epoch[0] != producer_id
    assert await values_on(settings, "entries") == [b"%d" % number for number in range(8)]


async def use_up_epochs(producer: TransactionalProducer, *, leave: int) -> tuple[int, int]:
    """Ask for epoch after epoch, without waiting for the answers, until so many are left of this producer id."""
    client, manager = producer._producer.client, producer._manager
    node = await producer._producer._sender._find_coordinator(CoordinationType.TRANSACTION, producer.transactional_id)
    await client.ready(node, group=ConnectionGroup.COORDINATION)
    coordinator = client._conns[node, ConnectionGroup.COORDINATION]
    request = InitProducerIdRequest(producer.transactional_id, manager.transaction_timeout_ms)
    while (missing := LAST_EPOCH - leave - producer.epoch[1]) > 0:
        answers = [coordinator.send(request) for _ in range(min(missing, 2_000))]
        last = (await asyncio.gather(*answers))[-1]
        assert for_code(last.error_code) is NoError
        manager._pid_and_epoch = type(manager._pid_and_epoch)(last.producer_id, last.producer_epoch)
    return producer.epoch


# --- fencing ----------------------------------------------------------------------------------------------------------


async def test_a_zombie_publishes_nothing(new_producer: NewProducer, settings: Settings) -> None:
    zombie = await new_producer()
    await zombie.publish({(settings.topic("entries"), 0): [batch_of(b"before")]})
    await zombie.next_epoch()
    await new_producer()
    with pytest.raises(ProducerFenced):
        await zombie.publish({(settings.topic("entries"), 0): [batch_of(b"zombie")]})
    assert await values_on(settings, "entries") == [b"before"]


async def test_a_zombie_in_the_middle_of_a_transaction_publishes_nothing(
    new_producer: NewProducer, settings: Settings
) -> None:
    zombie = await new_producer()
    await begin_half_a_transaction(settings, zombie)
    successor = await new_producer()
    with pytest.raises(ProducerFenced):
        await zombie._producer.commit_transaction()
    await successor.publish({(settings.topic("entries"), 0): [batch_of(b"successor")]})
    await successor.next_epoch()
    assert await values_on(settings, "entries") == [b"successor"]


async def test_a_zombie_gets_no_further_epoch(new_producer: NewProducer) -> None:
    zombie = await new_producer()
    await new_producer()
    with pytest.raises(ProducerFenced):
        await zombie.next_epoch()


# --- deliveries that fail -----------------------------------------------------------------------------------------


async def test_aiokafka_commits_a_transaction_whose_send_failed(new_producer: NewProducer, settings: Settings) -> None:
    ours = await new_producer()
    producer = ours._producer
    await producer.begin_transaction()
    good = await producer.send_batch(batch_of(b"good"), settings.topic("entries"), partition=0)
    bad = await producer.send_batch(too_large(), settings.topic("entries"), partition=1)
    # This is the loss: half of it is published. If this raises, aiokafka has closed the gap.
    await producer.commit_transaction()
    await good
    with pytest.raises(MessageSizeTooLargeError):
        await bad
    await ours.next_epoch()
    assert await values_on(settings, "entries") == [b"good"]


async def test_a_failed_delivery_publishes_nothing_of_its_transaction(
    new_producer: NewProducer, settings: Settings
) -> None:
    producer = await new_producer()
    entries = settings.topic("entries")
    with pytest.raises(MessageSizeTooLargeError):
        await producer.publish({(entries, 0): [batch_of(b"good")], (entries, 1): [too_large()]})
    await producer.discard()
    successor = await new_producer()
    await successor.publish({(entries, 0): [batch_of(b"after")]})
    await successor.next_epoch()
    assert await values_on(settings, "entries") == [b"after"]


def too_large() -> BatchBuilder:
    """More than the topic takes, and incompressible; `append` lets it pass."""
    batch = batch_of(secrets.token_bytes(3 * 1024 * 1024))
    assert batch.record_count() == 1
    return batch


async def test_a_producer_discarded_while_it_sends_leaves_no_task_behind(
    new_producer: NewProducer, settings: Settings
) -> None:
    before = asyncio.all_tasks()
    producer = await new_producer()
    await producer._producer.begin_transaction()
    await producer._producer.send_batch(batch_of(b"output"), settings.topic("entries"), partition=0)
    # aiokafka's sender waits for the request, and then for metadata that a closed client never gets.
    await in_flight(producer)
    async with asyncio.timeout(5):
        await producer.discard()
    assert asyncio.all_tasks() - before == set()


async def in_flight(producer: TransactionalProducer) -> None:
    """Return once a produce request is on its way."""
    async with asyncio.timeout(5):
        while True:
            if producer._producer._sender._in_flight:
                return
            await asyncio.sleep(0)


# --- libraries --------------------------------------------------------------------------------------------------------


def test_the_libraries_of_this_installation_are_whole() -> None:
    connection.check_libraries()


def test_an_aiokafka_without_its_extension_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = default_records._DefaultRecordBatchBuilderPy
    monkeypatch.setattr(default_records, "DefaultRecordBatchBuilder", slow)
    with pytest.raises(SettingsError, match="C extension"):
        connection.check_libraries()
