"""Room for what comes: partitions are made ahead, whatever their size was before, without making writers wait."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from infra.postgres.migrate import sqlalchemy_url
from infra.postgres.partitions import PARTITIONED, make_partitions
from infra.settings import Settings

EVENT = """
    INSERT INTO events (shard, seq, outputs, outcome, tenant_id, type, source, event_id, occurred_at, recorded_at,
        fingerprint, data)
    VALUES (0, $1, 1, 'applied', 't', 'x', 's', 'e', now(), now(), 0, '{}')
"""
SPANS = """
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
    FROM pg_class c
    JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE i.inhparent = 'events'::regclass AND c.relname LIKE 'events_s0_%'
    ORDER BY length(c.relname), c.relname
"""


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(sqlalchemy_url(settings), poolclass=NullPool)
    yield engine
    await engine.dispose()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    yield connection
    await connection.close()


async def make(engine: AsyncEngine, rows: int) -> int:
    async with engine.begin() as connection:
        return await make_partitions(connection, rows)


async def stands_at(database: asyncpg.Connection, next_seq: int) -> None:
    await database.execute("UPDATE shards SET next_seq = $1 WHERE shard = 0", next_seq)


async def test_partitions_go_on_where_the_last_ends_though_their_size_was_changed(
    engine: AsyncEngine, database: asyncpg.Connection, settings: Settings
) -> None:
    assert await make(engine, settings.partition_rows) == 0
    last = 2 * settings.partition_rows
    await stands_at(database, last - 10)
    assert await make(engine, 1_000) == len(PARTITIONED)
    spans = await database.fetch(SPANS)
    assert spans[-1]["relname"] == f"events_s0_{last}"
    assert str(last + 1_000) in spans[-1]["pg_get_expr"]


async def test_what_the_default_caught_stays_and_the_next_span_is_made(
    engine: AsyncEngine, database: asyncpg.Connection, settings: Settings
) -> None:
    missed = 2 * settings.partition_rows + 5
    await database.execute(EVENT, missed)
    await stands_at(database, missed + 1)
    await make(engine, 1_000)
    assert await database.fetchval("SELECT tableoid::regclass::text FROM events WHERE seq = $1", missed) == (
        "events_default"
    )
    await database.execute(EVENT, missed + 1_000)
    assert await database.fetchval("SELECT tableoid::regclass::text FROM events WHERE seq = $1", missed + 1_000) == (
        f"events_s0_{2 * settings.partition_rows + 1_000}"
    )


async def test_partitions_are_made_while_a_writer_has_its_transaction_open(
    engine: AsyncEngine, database: asyncpg.Connection, settings: Settings
) -> None:
    await stands_at(database, 2 * settings.partition_rows)
    async with database.transaction():
        await database.execute(EVENT, 1)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("SET LOCAL lock_timeout = '2s'")
            assert await make_partitions(connection, settings.partition_rows) == len(PARTITIONED)
