"""The relay publishes the outbox: each output once, in order, sealed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import ModuleType

import asyncpg
import orjson
import pytest

from infra.kafka import outbox_reader, transactions
from infra.kafka.producer import TransactionalProducer
from infra.kafka.wakeups import CHANNEL, HANDED_BYTES_MAX, HANDED_ROWS_MAX, RelayWakeups
from infra.outbox import OutboxRow, frame, pack
from infra.settings import Settings
from schemas.envelope import OutputEnvelope
from schemas.outputs import LedgerSealedV1
from tests.fixtures.outbox import RECORDED_AT, balance_changed, dead_letter, entry_recorded, write_outbox
from tests.fixtures.relay import books, running_relay
from tests.fixtures.subscriber import assert_once_and_in_order, committed, sealed, seals

__all__ = ["books"]


async def test_every_output_of_every_shard_arrives_once_and_in_order(
    books: asyncpg.Connection, settings: Settings
) -> None:
    for number in range(30):
        for shard in range(4):
            await write_outbox(books, shard, [balance_changed(number), entry_recorded(number)])
    async with running_relay(settings):
        for shard in range(4):
            await sealed(settings, shard, 60)
    records = await committed(settings, "balances", "entries")
    for shard in range(4):
        assert_once_and_in_order(records, epoch=1, shard=shard, seq_last=60)


async def test_outputs_of_several_batches_a_partition_stay_in_order(
    books: asyncpg.Connection, settings: Settings
) -> None:
    # Three megabytes that don't compress away before the batch is full, in one partition.
    await write_outbox(books, 0, [entry_recorded(n) for n in range(5)])
    await write_outbox(books, 0, [balance_changed(97 * n, padding=10_000) for n in range(300)])
    async with running_relay(settings):
        await sealed(settings, 0, 305)
    records = await committed(settings, "balances", "entries")
    assert_once_and_in_order(records, epoch=1, shard=0, seq_last=305)


async def test_an_output_carries_its_place_type_trace_and_time(books: asyncpg.Connection, settings: Settings) -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    output = balance_changed(7, traceparent=trace)
    await write_outbox(books, 2, [output])
    async with running_relay(settings):
        await sealed(settings, 2, 1)
    [record] = await committed(settings, "balances")
    assert (record.key, record.value, record.partition) == (output.key, output.value, output.partition)
    assert record.timestamp == int(RECORDED_AT.timestamp() * 1000)
    assert dict(record.headers) == {
        "content-type": b"application/cloudevents+json",
        "ce_type": b"balance.changed.v1",
        "ledger-epoch": b"1",
        "ledger-shard": b"2",
        "ledger-seq": b"1",
        "traceparent": trace,
    }


async def test_a_dead_letter_keeps_its_bytes_and_headers_and_gets_only_its_place(
    books: asyncpg.Connection, settings: Settings
) -> None:
    own = [("x", b"\xff\xfe"), ("x", None), ("dlq-code", b"malformed")]
    await write_outbox(books, 0, [dead_letter(b"\x00not json", key=b"k", headers=own), dead_letter(None)])
    async with running_relay(settings):
        await sealed(settings, 0, 2)
    place = [("ledger-epoch", b"1"), ("ledger-shard", b"0")]
    assert [(r.key, r.value, list(r.headers)) for r in await committed(settings, "dead-letters")] == [
        (b"k", b"\x00not json", [*own, *place, ("ledger-seq", b"1")]),
        (None, None, [*place, ("ledger-seq", b"2")]),
    ]


async def test_seals_follow_one_another_and_count_what_was_published(
    books: asyncpg.Connection, settings: Settings
) -> None:
    few = replace(settings, relay_transaction_rows_max=5)
    for number in range(12):
        await write_outbox(books, 1, [balance_changed(number), entry_recorded(number)])
    async with running_relay(few):
        await sealed(settings, 1, 24)
    said = await seals(settings, 1)
    assert [seal.seq_first for seal in said] == [1, *(seal.seq_last + 1 for seal in said[:-1])]
    assert all(seal.seq_last - seal.seq_first < 5 for seal in said)
    heads = dict(await books.fetch("SELECT seq_last, head_hash FROM outbox WHERE shard = 1"))
    for seal in said:
        assert seal.head_hash == heads[seal.seq_last]
        assert sum(seal.counts.values()) == seal.seq_last - seal.seq_first + 1
    assert sum(seal.counts[settings.topic("entries")] for seal in said) == 12


async def test_a_seal_is_what_the_contract_says(books: asyncpg.Connection, settings: Settings) -> None:
    await write_outbox(books, 3, [balance_changed(1)])
    async with running_relay(settings):
        await sealed(settings, 3, 1)
    [record] = await committed(settings, "seals")
    envelope = OutputEnvelope.model_validate_json(record.value)
    LedgerSealedV1.model_validate_json(orjson.dumps(envelope.data))
    assert (envelope.type, envelope.tenantid, record.key, record.partition) == ("ledger.sealed.v1", None, b"3", 3)
    assert dict(record.headers)["ce_type"] == b"ledger.sealed.v1"


async def test_a_new_relay_goes_on_from_the_last_seal(books: asyncpg.Connection, settings: Settings) -> None:
    for round_ in range(3):
        await write_outbox(books, 0, [entry_recorded(round_), balance_changed(round_)])
        async with running_relay(settings):
            await sealed(settings, 0, 2 * (round_ + 1))
    records = await committed(settings, "balances", "entries")
    assert_once_and_in_order(records, epoch=1, shard=0, seq_last=6)


async def test_outputs_of_two_epochs_never_share_a_seal(books: asyncpg.Connection, settings: Settings) -> None:
    await write_outbox(books, 0, [entry_recorded(1)])
    await books.execute("UPDATE shards SET epoch = 2 WHERE shard = 0")
    await write_outbox(books, 0, [entry_recorded(2)])
    async with running_relay(settings):
        await sealed(settings, 0, 2)
    assert [(seal.epoch, seal.seq_first, seal.seq_last) for seal in await seals(settings, 0)] == [(1, 1, 1), (2, 2, 2)]


async def test_a_row_from_a_clock_that_ran_ahead_is_published_with_its_time(
    books: asyncpg.Connection, settings: Settings
) -> None:
    ahead = RECORDED_AT + timedelta(days=3_000)
    await write_outbox(books, 0, [entry_recorded(1), balance_changed(1), dead_letter(b"x")], recorded_at=ahead)
    async with running_relay(settings):
        await sealed(settings, 0, 3)
    times = {record.timestamp for record in await committed(settings, "entries", "balances", "dead-letters")}
    assert times == {int(ahead.timestamp() * 1000)}


async def test_a_row_is_published_at_once_when_a_worker_here_tells(
    books: asyncpg.Connection, settings: Settings
) -> None:
    wakeups = RelayWakeups()
    async with running_relay(replace(settings, relay_poll_seconds=600), wakeups=wakeups):
        await _warmed_up(books, settings, wakeups)
        await write_outbox(books, 0, [entry_recorded(1)])
        wakeups.notify(0)
        await sealed(settings, 0, 2)


async def test_a_row_is_published_at_once_when_a_worker_elsewhere_tells(
    books: asyncpg.Connection, settings: Settings
) -> None:
    wakeups = RelayWakeups()
    async with running_relay(replace(settings, relay_poll_seconds=600), wakeups=wakeups):
        await _warmed_up(books, settings, wakeups)
        await write_outbox(books, 0, [entry_recorded(1)])
        await books.execute("SELECT pg_notify($1, '0')", CHANNEL)
        await sealed(settings, 0, 2)


async def test_a_row_that_was_handed_over_is_published_without_asking_postgres(
    books: asyncpg.Connection, settings: Settings
) -> None:
    wakeups = RelayWakeups()
    async with running_relay(replace(settings, relay_poll_seconds=600), wakeups=wakeups):
        await _warmed_up(books, settings, wakeups)
        await write_outbox(books, 0, [entry_recorded(1), entry_recorded(2)])
        row = await _take_row(books, 3)
        # It isn't in the outbox while the relay publishes it: nobody but us can have told it what it is.
        wakeups.hand_over(0, row)
        await sealed(settings, 0, 3)
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=3)


async def test_rows_handed_over_with_one_missing_are_read_from_postgres(
    books: asyncpg.Connection, settings: Settings
) -> None:
    wakeups = RelayWakeups()
    async with running_relay(replace(settings, relay_poll_seconds=600), wakeups=wakeups):
        await _warmed_up(books, settings, wakeups)
        for number in range(1, 4):
            await write_outbox(books, 0, [entry_recorded(number)])
        wakeups.hand_over(0, await _row(books, 4))
        await sealed(settings, 0, 4)
        # The first of these is known by now, and is passed over.
        await write_outbox(books, 0, [entry_recorded(4)])
        wakeups.hand_over(0, await _row(books, 4))
        wakeups.hand_over(0, await _row(books, 5))
        await sealed(settings, 0, 5)
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=5)


async def test_a_row_from_elsewhere_is_not_missed_for_one_handed_over_before_it(
    books: asyncpg.Connection, settings: Settings
) -> None:
    wakeups = RelayWakeups()
    async with running_relay(replace(settings, relay_poll_seconds=600), wakeups=wakeups):
        await _warmed_up(books, settings, wakeups)
        for number in range(1, 3):
            await write_outbox(books, 0, [entry_recorded(number)])
        handed = await _row(books, 2)
        # The relay hears of both at once.
        wakeups.hand_over(0, handed)
        wakeups.notify(0)
        await sealed(settings, 0, 3)
        for number in range(3, 5):
            await write_outbox(books, 0, [entry_recorded(number)])
        handed, large = await _row(books, 4), await _row(books, 5)
        wakeups.hand_over(0, handed)
        wakeups.hand_over(0, large._replace(body=bytes(HANDED_BYTES_MAX + 1)))
        await sealed(settings, 0, 5)
    assert_once_and_in_order(await committed(settings, "entries"), epoch=1, shard=0, seq_last=5)


async def test_after_a_row_in_memory_one_that_nobody_tells_of_is_still_found(
    books: asyncpg.Connection, settings: Settings
) -> None:
    wakeups = RelayWakeups()
    async with running_relay(replace(settings, relay_poll_seconds=0.3), wakeups=wakeups):
        await _warmed_up(books, settings, wakeups)
        await write_outbox(books, 0, [entry_recorded(1)])
        wakeups.hand_over(0, await _row(books, 2))
        await sealed(settings, 0, 2)
        await write_outbox(books, 0, [entry_recorded(2)])
        await sealed(settings, 0, 3)


async def test_what_was_handed_over_before_a_relay_began_is_not_believed(
    books: asyncpg.Connection, settings: Settings
) -> None:
    await write_outbox(books, 0, [entry_recorded(1)])
    wakeups, row = RelayWakeups(), await _row(books, 1)
    # As after a failover that lost this commit: what counts is what Postgres has now.
    wakeups.hand_over(0, row._replace(body=pack([frame(entry_recorded(2))])))
    async with running_relay(settings, wakeups=wakeups, shards=[0]):
        await sealed(settings, 0, 1)
    (record,) = await committed(settings, "entries")
    assert orjson.loads(record.value) == {"number": 1}


def test_little_is_kept_of_what_is_handed_over_where_no_relay_takes_it() -> None:
    wakeups = RelayWakeups()
    row = OutboxRow(1, 1, 1, RECORDED_AT, b"", b"x")
    for seq in range(100):
        wakeups.hand_over(0, row._replace(seq_first=seq, seq_last=seq))
    wakeups.hand_over(0, row._replace(body=bytes(HANDED_BYTES_MAX + 1)))
    assert [each.seq_first for each in wakeups.handed(0)] == list(range(100 - HANDED_ROWS_MAX, 100))
    assert wakeups.of(0).is_set()


async def _row(books: asyncpg.Connection, seq_last: int) -> OutboxRow:
    row = await books.fetchrow(
        "SELECT seq_first, seq_last, epoch, recorded_at, head_hash, body FROM outbox WHERE shard = 0 AND seq_last = $1",
        seq_last,
    )
    return OutboxRow(*row)


async def _take_row(books: asyncpg.Connection, seq_last: int) -> OutboxRow:
    row = await _row(books, seq_last)
    await books.execute("DELETE FROM outbox WHERE shard = 0 AND seq_last = $1", seq_last)
    return row


async def _warmed_up(books: asyncpg.Connection, settings: Settings, wakeups: RelayWakeups) -> None:
    """The relay of shard 0 has published something and waits for more."""
    await write_outbox(books, 0, [entry_recorded(0)])
    wakeups.notify(0)
    await sealed(settings, 0, 1)
    async with asyncio.timeout(10):
        while True:
            if wakeups.of(0)._waiters:
                return
            await asyncio.sleep(0.01)


async def test_a_row_that_nobody_tells_of_is_found(books: asyncpg.Connection, settings: Settings) -> None:
    async with running_relay(replace(settings, relay_poll_seconds=0.05)):
        await write_outbox(books, 0, [entry_recorded(0)])
        await sealed(settings, 0, 1)
        await write_outbox(books, 0, [entry_recorded(1)])
        await sealed(settings, 0, 2)


async def test_relays_share_the_shards_and_take_over_from_one_that_ends(
    books: asyncpg.Connection, settings: Settings
) -> None:
    async with running_relay(settings):
        await _shards_held(books, [4])
        async with running_relay(settings):
            await _shards_held(books, [2, 2])
            for shard in range(4):
                await write_outbox(books, shard, [entry_recorded(shard)])
                await sealed(settings, shard, 1)
        await _shards_held(books, [4])
        for shard in range(4):
            await write_outbox(books, shard, [entry_recorded(shard)])
            await sealed(settings, shard, 2)
    records = await committed(settings, "entries")
    for shard in range(4):
        assert_once_and_in_order(records, epoch=1, shard=shard, seq_last=2)


async def _shards_held(books: asyncpg.Connection, expected: list[int]) -> None:
    async with asyncio.timeout(20):
        while True:
            rows = await books.fetch(
                "SELECT count(*) AS shards FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                " WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND datname = current_database()"
                " GROUP BY pid ORDER BY pid"
            )
            if [row["shards"] for row in rows] == expected:
                return
            await asyncio.sleep(0.05)


async def test_the_hint_how_far_it_came_follows(books: asyncpg.Connection, settings: Settings) -> None:
    await write_outbox(books, 0, [entry_recorded(1), entry_recorded(2)])
    async with running_relay(settings):
        await sealed(settings, 0, 2)
    assert await books.fetchval("SELECT seq FROM relayed WHERE shard = 0") == 2


@pytest.mark.parametrize(
    ("module", "limit"),
    [(outbox_reader, "PAGE_ROWS"), (outbox_reader, "PAGE_BYTES"), (transactions, "TRANSACTION_BYTES_MAX")],
)
async def test_a_page_and_a_transaction_hold_one_row_at_least(
    books: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch, module: ModuleType, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 1)
    for number in range(5):
        await write_outbox(books, 0, [balance_changed(number), entry_recorded(number)])
    async with running_relay(settings, shards=[0]):
        await sealed(settings, 0, 10)
    assert_once_and_in_order(await committed(settings, "balances", "entries"), epoch=1, shard=0, seq_last=10)


async def test_every_transaction_of_the_relay_has_an_epoch_of_its_own(
    books: asyncpg.Connection, settings: Settings
) -> None:
    for number in range(6):
        await write_outbox(books, 0, [entry_recorded(number)])
    async with running_relay(replace(settings, relay_transaction_rows_max=1), shards=[0]):
        await sealed(settings, 0, 6)
    ledger_id = await books.fetchval("SELECT ledger_id FROM ledger")
    successor = TransactionalProducer(settings, f"{ledger_id}.0")
    try:
        await successor.start()
        # The relay began with epoch 0; each of its transactions took one, and so does this one's start.
        assert successor.epoch[1] == 7
    finally:
        await successor.discard()


async def test_a_page_is_read_in_order_from_the_index_on_a_table_never_analyzed(
    books: asyncpg.Connection, settings: Settings
) -> None:
    await books.execute(
        "INSERT INTO outbox (shard, seq_last, seq_first, epoch, recorded_at, head_hash, body)"
        " SELECT 0, n, n, 1, now(), sha256(''), sha256('') FROM generate_series(1, 20000) n"
    )
    page = await books.fetch(outbox_reader._PAGE, 0, 100, 10, 1_000_000, 1_000)
    assert [row["seq_last"] for row in page] == list(range(101, 111))
    few = await books.fetch(outbox_reader._NEXT, 0, 100, 3)
    assert [row["seq_last"] for row in few] == [101, 102, 103]
    for query in (outbox_reader._PAGE, outbox_reader._NEXT):
        plan = "\n".join(row[0] for row in await books.fetch(f"EXPLAIN {_with_values(query)}"))
        assert "Seq Scan" not in plan
        assert "Sort  (" not in plan


def _with_values(query: str) -> str:
    for place, value in {"$1": "0", "$2": "100", "$3": "10", "$4": "1000000", "$5": "1000"}.items():
        query = query.replace(place, value)
    return query
