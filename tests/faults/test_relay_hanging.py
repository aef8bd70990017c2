"""A transaction that Kafka takes for ended, but left open: the relay ends it as it was decided, and goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import ConnectionGroup
from aiokafka.errors import InvalidTxnState
from aiokafka.protocol.produce import ProduceRequest

from infra.kafka.connection import client_arguments
from infra.kafka.hanging import _end, find_hanging
from infra.kafka.producer import TransactionalProducer, new_batch
from infra.kafka.protocol_v1 import ProtocolV1
from infra.kafka.seals import read_last_seal
from infra.kafka.transactions import Transaction
from infra.outbox import OutboxRow
from infra.settings import Settings
from tests.fixtures.outbox import RECORDED_AT, balance_changed, entry_recorded, write_outbox
from tests.fixtures.relay import books, older_broker, running_relay
from tests.fixtures.subscriber import assert_once_and_in_order, committed, sealed, seals

__all__ = ["books", "older_broker"]

VERIFY = "transaction.partition.verification.enable"


async def let_stray_batches_in(settings: Settings, allowed: bool) -> None:
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    await admin.start()
    try:
        nodes = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
        configs = {VERIFY: "false"} if allowed else {}
        brokers = [ConfigResource(ConfigResourceType.BROKER, str(node), configs) for node in nodes]
        for answer in await admin.alter_configs(brokers):
            assert not [each for each in answer.resources if each[0]], answer
    finally:
        await admin.close()


@pytest.fixture
async def stray_batches(settings: Settings) -> AsyncIterator[None]:
    """The broker takes batches of transactions of which their coordinator doesn't know: so nobody ends them."""
    await let_stray_batches_in(settings, True)
    yield
    await let_stray_batches_in(settings, False)


async def packed(settings: Settings, books: asyncpg.Connection, shard: int = 0) -> Transaction:
    """The outbox as the transaction that the relay makes of it."""
    rows = await books.fetch(
        "SELECT seq_first, seq_last, epoch, recorded_at, head_hash, body FROM outbox WHERE shard = $1"
        " ORDER BY seq_last",
        shard,
    )
    transaction = Transaction(settings, shard, rows[0]["seq_first"], rows[0]["epoch"])
    for row in rows:
        await transaction.add(OutboxRow(*row))
    transaction.seal()
    return transaction


async def leave_open(settings: Settings, books: asyncpg.Connection, *, without: str = "") -> None:
    """Deliver a transaction to its partitions, all but `without`'s, and let its coordinator know nothing of it."""
    async with asyncio.timeout(20):
        # A broker's setting counts a moment after it was answered; till then the first batch is refused.
        while not await delivered(settings, books, without):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def delivered(settings: Settings, books: asyncpg.Connection, without: str) -> bool:
    producer = TransactionalProducer(settings, f"{await books.fetchval('SELECT ledger_id FROM ledger')}.0")
    try:
        await producer.start()
        await producer._producer.begin_transaction()
        for place, queue in (await packed(settings, books)).batches.items():
            if place[0] != settings.topic(without):
                producer._manager._txn_partitions.add(place)
                await ProtocolV1(producer._producer, producer.transactional_id)._send(place, queue)
        return True
    except InvalidTxnState:
        return False
    finally:
        await producer.discard()


async def test_a_transaction_that_hangs_is_committed_and_nothing_is_published_twice(
    settings: Settings, books: asyncpg.Connection, stray_batches: None, caplog: pytest.LogCaptureFixture
) -> None:
    await write_outbox(books, 0, [entry_recorded(1), entry_recorded(2)])
    await leave_open(settings, books)
    caplog.set_level(logging.WARNING, logger="infra")
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 2)
        await write_outbox(books, 0, [entry_recorded(3)])
        await sealed(settings, 0, 3)
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=3)
    assert [(seal.seq_first, seal.seq_last) for seal in await seals(settings, 0)] == [(1, 2), (3, 3)]
    raw = await committed(settings, "entries", isolation="read_uncommitted")
    assert len(raw) == 3
    assert "Kafka left a transaction open" in caplog.text


async def test_a_transaction_that_hangs_without_its_seal_is_aborted_and_published_again(
    settings: Settings, books: asyncpg.Connection, stray_batches: None
) -> None:
    await write_outbox(books, 0, [entry_recorded(1), entry_recorded(2)])
    await leave_open(settings, books, without="seals")
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 2)
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=2)
    raw = await committed(settings, "entries", isolation="read_uncommitted")
    assert len(raw) == 4


@pytest.mark.parametrize("later", [0, 1])
async def test_a_transaction_of_which_a_part_was_committed_is_committed(
    settings: Settings, books: asyncpg.Connection, stray_batches: None, later: int
) -> None:
    await write_outbox(books, 0, [entry_recorded(1), balance_changed(2)])
    await leave_open(settings, books)
    await end_in(settings, books, "balances", commit=True, later=later)
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 2)
        await write_outbox(books, 0, [entry_recorded(3)])
        await sealed(settings, 0, 3)
    assert_once_and_in_order(await committed(settings, "entries", "balances"), epoch=1, shard=0, seq_last=3)
    assert [(seal.seq_first, seal.seq_last) for seal in await seals(settings, 0)] == [(1, 2), (3, 3)]


@pytest.mark.parametrize("later", [0, 1])
async def test_a_transaction_of_which_a_part_was_aborted_is_aborted_and_published_again(
    settings: Settings, books: asyncpg.Connection, stray_batches: None, later: int
) -> None:
    await write_outbox(books, 0, [entry_recorded(1), balance_changed(2)])
    await leave_open(settings, books)
    await end_in(settings, books, "balances", commit=False, later=later)
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 2)
    assert_once_and_in_order(await committed(settings, "entries", "balances"), epoch=1, shard=0, seq_last=2)
    raw = await committed(settings, "entries", isolation="read_uncommitted")
    assert len(raw) == 2


@pytest.mark.parametrize("later", [0, 1])
async def test_an_end_is_found_however_old_the_outputs_before_it_are(
    request: pytest.FixtureRequest, settings: Settings, books: asyncpg.Connection, stray_batches: None, later: int
) -> None:
    """As after a long time without a relay: the outputs of one transaction are hours apart."""
    if not later:
        request.getfixturevalue("older_broker")
    await write_outbox(books, 0, [balance_changed(1)], recorded_at=RECORDED_AT - timedelta(hours=1))
    await write_outbox(books, 0, [entry_recorded(2)])
    await leave_open(settings, books)
    await end_in(settings, books, "balances", commit=True, later=later)
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 2)
    assert_once_and_in_order(await committed(settings, "entries", "balances"), epoch=1, shard=0, seq_last=2)


async def test_what_hangs_is_found_while_the_relay_has_nothing_to_do(
    settings: Settings,
    books: asyncpg.Connection,
    stray_batches: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A broker answers the end of a transaction first, then writes its markers; killed between, it may leave some out.

    Back before the next output, it would be asked for that one as if nothing had been.
    """
    made: list[TransactionalProducer] = []
    start = TransactionalProducer.start

    async def start_and_tell(self: TransactionalProducer) -> None:
        await start(self)
        made.append(self)

    monkeypatch.setattr(TransactionalProducer, "start", start_and_tell)
    caplog.set_level(logging.WARNING, logger="infra")
    await write_outbox(books, 0, [entry_recorded(1)])
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 1)
        await leave_open_in(settings, made[0], "decisions", before=1)
        connections = made[0]._producer.client._conns
        (connection,) = [each for (_, group), each in connections.items() if group == ConnectionGroup.COORDINATION]
        connection._writer.transport.abort()
        async with asyncio.timeout(10):
            while "Kafka left a transaction open" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await write_outbox(books, 0, [entry_recorded(2)])
        await sealed(settings, 0, 2)
    assert "committed it" in caplog.text
    assert len(await committed(settings, "decisions")) == 1
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=2)


async def test_each_of_two_transactions_that_hang_ends_as_it_was_decided(
    settings: Settings, books: asyncpg.Connection, stray_batches: None
) -> None:
    await write_outbox(books, 0, [entry_recorded(1)])
    producer = TransactionalProducer(settings, f"{await books.fetchval('SELECT ledger_id FROM ledger')}.0")
    try:
        await producer.start()
        await producer.publish((await packed(settings, books)).batches)
        await leave_open_in(settings, producer, "decisions", before=1)
        await leave_open_in(settings, producer, "balances", before=0)
    finally:
        await producer.discard()
    async with running_relay(settings, shards=[0]):
        await write_outbox(books, 0, [entry_recorded(2)])
        await sealed(settings, 0, 2)
    assert len(await committed(settings, "decisions")) == 1
    assert await committed(settings, "balances") == []


async def leave_open_in(settings: Settings, producer: TransactionalProducer, topic: str, *, before: int) -> None:
    """Let a transaction of this producer, so many before its next, be open in a partition of which nobody told."""
    producer_id, epoch = producer.epoch
    place = settings.topic(topic), 0
    batch = new_batch()
    batch.append(timestamp=int(RECORDED_AT.timestamp() * 1000), key=b"k", value=b"{}", headers=[])
    batch._set_producer_state(producer_id, epoch - before, 0)
    await producer.partitions_for(place[0])
    stray = ProduceRequest(
        transactional_id=producer.transactional_id,
        required_acks=-1,
        timeout=5_000,
        topics=[(place[0], [(place[1], batch._build())])],
    )
    async with asyncio.timeout(20):
        while (await producer.ask(producer.leader_of(place), stray)).topics[0][1][0][1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def end_in(settings: Settings, books: asyncpg.Connection, topic: str, *, commit: bool, later: int) -> None:
    """Write the marker of the open transaction to one topic's partition, as a broker would that dies then.

    Its epoch is that of the transaction, or the next: by the older protocol and by the newer.
    """
    producer = TransactionalProducer(settings, f"{await books.fetchval('SELECT ledger_id FROM ledger')}.0")
    try:
        await producer.start()
        found = await find_hanging(settings, producer)
        (place,) = [place for place in found if place.topic == settings.topic(topic)]
        hanging = found[place]
        await _end(producer, 0, place, replace(hanging, producer_epoch=hanging.producer_epoch + later), commit=commit)
    finally:
        await producer.discard()


async def test_after_an_orderly_transaction_nothing_hangs(settings: Settings, books: asyncpg.Connection) -> None:
    await write_outbox(books, 0, [entry_recorded(1)])
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 1)
    producer = TransactionalProducer(settings, f"{await books.fetchval('SELECT ledger_id FROM ledger')}.0")
    try:
        await producer.start()
        assert await find_hanging(settings, producer) == {}
        seal = await read_last_seal(settings, 0)
        assert seal is not None and seal.seq_last == 1
    finally:
        await producer.discard()
