"""A shard whose stream and books don't fit stops, says the way out, and leaves the others alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from infra.kafka import relay, seals
from infra.kafka.producer import TransactionalProducer, new_batch
from infra.kafka.seals import Seal, encode_seal, read_last_seal
from infra.settings import Settings
from tests.fixtures.outbox import RECORDED_AT, entry_recorded, write_outbox
from tests.fixtures.relay import books, running_relay
from tests.fixtures.subscriber import assert_once_and_in_order, committed, sealed

__all__ = ["books"]

Break = Callable[[asyncpg.Connection, Settings], Awaitable[object]]


def sql(statement: str) -> Break:
    return lambda books, _settings: books.execute(statement)


async def put_on_seals(settings: Settings, value: bytes) -> None:
    """Somebody else writes to shard 0's partition of the seals."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(settings.topic("seals"), value, partition=0)
    finally:
        await producer.stop()


def seal_of(*, epoch: int = 1, shard: int = 0, seq_last: int = 2, head_hash: bytes = bytes(32)) -> bytes:
    seal = Seal(epoch=epoch, shard=shard, seq_first=1, seq_last=seq_last, counts={}, head_hash=head_hash)
    return encode_seal(seal, RECORDED_AT)


CASES: dict[str, tuple[Break, str]] = {
    "the database was restored to before the last seal": (
        sql("WITH gone AS (DELETE FROM outbox WHERE shard = 0) UPDATE shards SET next_seq = 1 WHERE shard = 0"),
        "is sealed up to seq 2 of epoch 1, but the books end at 0 of epoch 1",
    ),
    "the database was restored and has gone on otherwise": (
        sql("UPDATE outbox SET head_hash = sha256('another') WHERE shard = 0"),
        "with another head of the hash chain",
    ),
    "the database was restored to before a recovery": (
        lambda _books, settings: put_on_seals(settings, seal_of(epoch=2)),
        "of epoch 2, but the books end at 2 of epoch 1",
    ),
    "the outbox has lost the row of the last seal": (
        sql(
            "WITH gone AS (DELETE FROM outbox WHERE shard = 0)"
            " UPDATE shards SET next_seq = 9, head_hash = sha256('nine') WHERE shard = 0"
        ),
        "of which the outbox has no row",
    ),
    "the outbox has lost a row that wasn't published": (
        sql(
            "WITH gap AS (UPDATE shards SET next_seq = 5 WHERE shard = 0) INSERT INTO outbox"
            " SELECT shard, 4, 4, epoch, recorded_at, head_hash, body FROM outbox WHERE shard = 0"
        ),
        "after seq 2 its outbox goes on with 4",
    ),
    "a row of the outbox is damaged": (
        sql(
            "WITH gap AS (UPDATE shards SET next_seq = 4 WHERE shard = 0) INSERT INTO outbox"
            " SELECT shard, 3, 3, epoch, recorded_at, head_hash, '\\x28b52ffd00' FROM outbox WHERE shard = 0"
        ),
        "its outbox row of seqs 3 to 3 can't be read",
    ),
    "a row of the outbox holds too few outputs": (
        sql(
            "WITH gap AS (UPDATE shards SET next_seq = 10 WHERE shard = 0) INSERT INTO outbox"
            " SELECT shard, 9, 3, epoch, recorded_at, head_hash, body FROM outbox WHERE shard = 0"
        ),
        "its outbox row of seqs 3 to 9 holds 2 outputs",
    ),
    "Kafka lost seals that were committed": (
        sql("UPDATE relayed SET seq = 7 WHERE shard = 0"),
        "is sealed up to seq 2, but outputs up to 7 were published",
    ),
    "another shard's relay wrote here": (
        lambda _books, settings: put_on_seals(settings, seal_of(shard=3)),
        "is sealed by shard 3",
    ),
    "a stranger wrote here": (
        lambda _books, settings: put_on_seals(settings, b'{"hello": "world"}'),
        "has a record that is not a seal",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_shard_that_cannot_be_right_stops_alone_and_says_the_way_out(
    books: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    break_it, said = CASES[case]
    await write_outbox(books, 0, [entry_recorded(1), entry_recorded(2)])
    async with running_relay(settings):
        await sealed(settings, 0, 2)
    await break_it(books, settings)
    await write_outbox(books, 1, [entry_recorded(1)])
    published = len(await committed(settings, "entries"))
    async with running_relay(settings):
        await sealed(settings, 1, 1)
        line = await line_with(caplog, said)
    assert line.startswith("shard 0: ")
    assert "`ledgerstream recover`" in line
    assert len(await committed(settings, "entries")) == published + 1


async def test_no_seal_where_something_was_published_stops_the_shard(
    books: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await write_outbox(books, 0, [entry_recorded(1)])
    await books.execute("INSERT INTO relayed (shard, seq) VALUES (0, 1)")
    async with running_relay(settings, shards=[0]):
        line = await line_with(caplog, "has no seal, but outputs up to seq 1 were published")
    assert "`ledgerstream recover`" in line
    assert await committed(settings, "entries") == []


async def test_a_stopped_shard_says_so_once_and_goes_on_when_it_was_mended(
    books: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "STOPPED_SECONDS", 0.05)
    caplog.set_level("DEBUG", logger="infra.kafka.relay")

    def levels_said() -> list[str]:
        return [record.levelname for record in caplog.records if "has no seal" in record.getMessage()]

    await write_outbox(books, 0, [entry_recorded(1)])
    await books.execute("INSERT INTO relayed (shard, seq) VALUES (0, 1)")
    async with running_relay(settings, shards=[0]):
        async with asyncio.timeout(15):
            while True:
                if len(levels_said()) >= 4:
                    break
                await asyncio.sleep(0.01)
        await books.execute("DELETE FROM relayed")
        await sealed(settings, 0, 1)
    assert levels_said()[0] == "ERROR"
    assert set(levels_said()[1:]) == {"DEBUG"}


async def line_with(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """The log line that has this text, as soon as there is one."""
    async with asyncio.timeout(15):
        while True:
            for record in caplog.records:
                if text in record.getMessage():
                    return record.getMessage()
            await asyncio.sleep(0.01)


# --- the last seal --------------------------------------------------------------------------------------------------


async def test_the_last_seal_is_found_behind_aborted_ones(books: asyncpg.Connection, settings: Settings) -> None:
    place = (settings.topic("seals"), 0)
    producer = TransactionalProducer(settings, f"{settings.topic_prefix}aborts")
    await producer.start()
    try:
        await producer.publish({place: [batch_of(seal_of(seq_last=7))]})
        # More than one look back takes in: each takes two offsets, one of them the marker's.
        for _ in range(seals._LOOK_BACK):
            await producer._producer.begin_transaction()
            await (await producer._producer.send_batch(batch_of(seal_of(seq_last=8)), place[0], partition=0))
            await producer._producer.abort_transaction()
    finally:
        await producer.discard()
    last = await read_last_seal(settings, 0)
    assert last is not None
    assert last.seq_last == 7


async def test_where_every_seal_was_aborted_there_is_none(books: asyncpg.Connection, settings: Settings) -> None:
    producer = TransactionalProducer(settings, f"{settings.topic_prefix}aborts")
    await producer.start()
    try:
        await producer._producer.begin_transaction()
        batch = batch_of(seal_of())
        await (await producer._producer.send_batch(batch, settings.topic("seals"), partition=0))
        await producer._producer.abort_transaction()
    finally:
        await producer.discard()
    assert await read_last_seal(settings, 0) is None


async def test_a_seal_behind_somebodys_open_transaction_is_waited_for(
    books: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "READ_SECONDS", 1.0)
    await put_on_seals(settings, seal_of(seq_last=5))
    stranger = TransactionalProducer(settings, f"{settings.topic_prefix}stranger")
    await stranger.start()
    try:
        await stranger._producer.begin_transaction()
        batch = batch_of(seal_of(seq_last=6))
        await (await stranger._producer.send_batch(batch, settings.topic("seals"), partition=0))
        # The last stable offset is before this one: a reader that stops there would find the older seal.
        await put_on_seals(settings, seal_of(seq_last=7))
        with pytest.raises(TimeoutError):
            await read_last_seal(settings, 0)
        await stranger._producer.abort_transaction()
    finally:
        await stranger.discard()
    last = await read_last_seal(settings, 0)
    assert last is not None
    assert last.seq_last == 7


def batch_of(value: bytes) -> BatchBuilder:
    batch = new_batch()
    batch.append(timestamp=1_700_000_000_000, key=b"0", value=value, headers=[])
    return batch


async def test_a_topic_without_the_partition_says_which(
    books: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await write_outbox(books, 0, [entry_recorded(1, partitions=4)._replace(partition=9)])
    async with running_relay(settings, shards=[0]):
        line = await line_with(caplog, "has no partition 9")
    assert "the relay of shard 0" in line


async def test_shards_with_nothing_to_publish_say_nothing(
    books: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await write_outbox(books, 0, [entry_recorded(1)])
    async with running_relay(settings):
        await sealed(settings, 0, 1)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("infra")] == []
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=1)
