"""What a batch costs: as many statements whatever its size, and no more rows read than it names."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from infra.devstack import RunningStack
from infra.postgres import writes
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.database import database
from tests.fixtures.desk import Desk, Envelope, desk_on, envelope, event_of, payment, post, refund
from tests.fixtures.statements import counted

ROWS = 120_000


def every_kind(number: int) -> list[Envelope]:
    """Ten events on things of their own, of every kind of table that a batch may touch; some are parked."""
    customer, mark = f"c{number}", f"{number}"
    money = {"amount": 100, "currency": "EUR"}
    return [
        refund(mark, 10, payment_id=mark, customer_id=customer),
        payment(mark, 1_000, customer_id=customer, fees=30),
        envelope("refund.failed.v1", refund_id=mark),
        envelope("transfer.created.v1", transfer_id=mark, customer_id=customer, merchant_id=mark, **money),
        envelope("transfer.reversed.v1", transfer_id=mark),
        envelope("payout.paid.v1", payout_id=mark, merchant_id=mark, **money),
        envelope("payout.failed.v1", payout_id=f"none-{mark}"),
        envelope("dispute.opened.v1", dispute_id=mark, payment_id=mark, customer_id=customer, **money),
        payment(mark, 7, customer_id=customer),
        post((f"customer_balance:{customer}", 5), ("platform:cash", -5)),
    ]


async def test_a_batch_takes_as_many_statements_whatever_its_size(
    ledger_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: Counter[str] = Counter()
    copy = asyncpg.Connection.copy_records_to_table

    async def copied(self: Any, table: str, **more: Any) -> Any:
        copies[table] += 1
        return await copy(self, table, **more)

    monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", copied)
    async with desk_on(ledger_settings) as desk:
        statements = counted(desk)
        await desk.apply(*every_kind(0))
        asked = []
        numbers = iter(range(1, 10_000))
        for size in (10, 50, 1_000, 1_500):
            statements.clear()
            copies.clear()
            await desk.apply(*(event for _ in range(size // 10) for event in every_kind(next(numbers))))
            asked.append((statements.copy(), copies.copy()))
        # Few rows go all in one statement, many by one COPY a table.
        assert asked[0] == asked[1]
        assert asked[2] == asked[3]
        assert sum(asked[0][0].values()) < 18
        assert not asked[0][1]
        assert sum(asked[2][0].values()) + sum(asked[2][1].values()) < 45
        assert set(asked[2][1].values()) == {1}
        assert len(await desk.entries()) == 257 * 8
        async with desk.pool.acquire() as connection:
            await assert_coherent(connection)


EVERYTHING = (
    "events",
    "entries",
    "postings",
    "accounts",
    "balances",
    "balance_days",
    "payments",
    "refunds",
    "transfers",
    "payouts",
    "disputes",
    "parked",
    "idempotency_keys",
    "outbox",
    "shards",
    "input_offsets",
    "dead_letters",
    "periods",
    "tenants",
)


async def test_the_same_rows_are_written_together_and_by_copy(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event for number in range(3) for event in every_kind(number)]
    events.append(envelope("payment.captured.v1", payment_id="odd", amount=1, currency="XXQ", customer_id="c"))
    events.append(payment("large", 2**62, customer_id="c0", metadata={"quoted": '{"a,b"}'}))
    # A fact that breaks a rule is posted, and its entry says which: a list in a column.
    frozen = {"name": "customer_balance:c0", "status": "frozen"}
    events += [envelope("account.update.v1", **frozen), payment("breach", customer_id="c0")]
    made = [event_of(event) for event in events]
    written = []
    for rows_max in (writes.TOGETHER_ROWS_MAX, 0):
        monkeypatch.setattr(writes, "TOGETHER_ROWS_MAX", rows_max)
        async with database(stack, 1) as url, desk_on(Settings(database_url=url, shards=1)) as desk:
            await desk.apply_events(made)
            written.append({table: await _all_rows(desk, table) for table in EVERYTHING})
    assert written[0] == written[1]
    assert any(row["breaches"] for row in written[0]["entries"])


async def _all_rows(desk: Desk, table: str) -> list[dict[str, Any]]:
    rows = await desk.pool.fetch(f"SELECT * FROM {table} AS t ORDER BY t::text")
    return [{name: value for name, value in row.items() if name != "updated_at"} for row in rows]


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"


async def test_what_is_committed_while_a_batch_waits_for_its_shard_is_seen_by_it(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        statements = counted(desk)
        await desk.apply(payment("p0"))
        statements.clear()
        shard, twice = await desk.shard(), desk.event(payment("p1"))
        desk.ledger._ahead.in_vain(shard)
        assert twice.natural is not None
        other = await asyncpg.connect(ledger_settings.asyncpg_dsn)
        try:
            async with other.transaction():
                await other.execute("SELECT FROM shards WHERE shard = $1 FOR NO KEY UPDATE", shard)
                waiting = asyncio.create_task(desk.apply_events([twice]))
                async with asyncio.timeout(10):
                    while not await other.fetchval(WAITING):  # noqa: ASYNC110
                        await asyncio.sleep(0)
                claim = (shard, UUID(bytes=twice.natural), 1, twice.fingerprint)
                await other.execute("INSERT INTO idempotency_keys VALUES ($1, $2, $3, $4, 1)", *claim)
            assert (await waiting).duplicates == 1
            # Had it read with the snapshot of before, the constraint on the key would have made it try again.
            assert [text.split()[0] for text in statements] == ["BEGIN;", "SELECT", "COMMIT"]
        finally:
            await other.close()


CROWD = [
    "INSERT INTO accounts (shard, account_id, tenant_id, name, type)"
    " SELECT $1, gen_random_uuid(), 'crowd', 'a' || n, 'asset' FROM generate_series(1, $2) n",
    "INSERT INTO balances SELECT $1, account_id, 'EUR', 0, 0, 0, 1, now() FROM accounts WHERE tenant_id = 'crowd'"
    " LIMIT $2",
    "INSERT INTO balance_days SELECT $1, account_id, 'EUR', '2026-03-02', 0, 1, 1 FROM accounts"
    " WHERE tenant_id = 'crowd' LIMIT $2",
    "INSERT INTO idempotency_keys SELECT $1, gen_random_uuid(), 1, n, 1 FROM generate_series(1, $2) n",
    "INSERT INTO payments SELECT $1, gen_random_uuid(), 'EUR', 'c', 'crowd', NULL, 'p' || n, gen_random_uuid(), 1, 0"
    " FROM generate_series(1, $2) n",
    "INSERT INTO refunds SELECT $1, gen_random_uuid(), NULL, 'crowd', NULL, 'r' || n, NULL, 'EUR', 'c',"
    " gen_random_uuid(), gen_random_uuid(), 1, false FROM generate_series(1, $2) n",
    "INSERT INTO disputes SELECT $1, gen_random_uuid(), 'crowd', NULL, 'd' || n, NULL, 'EUR', 'c', gen_random_uuid(), 1"
    " FROM generate_series(1, $2) n",
    "INSERT INTO parked SELECT $1, 1000000000 + n, gen_random_uuid(), now() + interval '1 day', false"
    " FROM generate_series(1, $2) n",
]
CROWDED = ("accounts", "balances", "balance_days", "idempotency_keys", "payments", "refunds", "disputes", "parked")


async def test_a_batch_reads_only_the_rows_it_names_on_tables_never_analyzed(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        await desk.apply(*every_kind(0))
        await _crowd(ledger_settings, await desk.shard())
        # Plans are made once a connection; these are made with the crowd there, the statistics still of nothing.
        async with desk_on(ledger_settings) as late:
            before = await _rows_read(late)
            begun = time.perf_counter()
            await late.apply(*(event for number in range(1, 51) for event in every_kind(number)))
            took = time.perf_counter() - begun
            await late.ledger.expire_parked(await late.shard())
            await late.ledger.resume_arrived(await late.shard())
            after = await _rows_read(late)
        read = {table: after[table] - before[table] for table in CROWDED}
        assert max(read.values()) < 20_000, read
        assert took < 3.0


async def _crowd(settings: Settings, shard: int) -> None:
    owner = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        for table in CROWDED:
            await owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        for statement in CROWD:
            await owner.execute(statement, shard, ROWS)
    finally:
        await owner.close()


async def _rows_read(desk: Desk) -> dict[str, int]:
    """How many rows, live or not, each table gave to anybody so far."""
    async with desk.pool.acquire() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        rows = await connection.fetch(
            "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_read, 0) AS rows_read"
            " FROM pg_stat_user_tables JOIN (SELECT relid, sum(idx_tup_read) AS idx_tup_read"
            " FROM pg_stat_user_indexes GROUP BY relid) AS i USING (relid)"
        )
    return {row["relname"]: int(row["rows_read"]) for row in rows}
