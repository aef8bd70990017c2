"""The outbox loses whole partitions, once every row in them is published and old enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from infra.postgres.migrate import migrate
from infra.postgres.partitions import make_partitions
from infra.postgres.retention import drop_relayed_outbox
from infra.settings import Settings
from tests.fixtures.outbox import entry_recorded, write_outbox

# Seqs 0 to 9 stand in the first partition, 10 to 19 in the second.
PARTITION_ROWS = 10
OLD = datetime.now(UTC) - timedelta(days=8)


@pytest.fixture
async def settings(empty_database_url: str) -> Settings:
    """A ledger with one shard and small partitions."""
    small = Settings(database_url=empty_database_url, shards=1, partition_rows=PARTITION_ROWS)
    await migrate(small)
    return small


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection as the clock process has it, with partitions made up to seq 29."""
    url = settings.need_database_url().replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as made:
        await made.exec_driver_sql("UPDATE shards SET next_seq = 10")
        await make_partitions(made, PARTITION_ROWS)
        await made.exec_driver_sql("UPDATE shards SET next_seq = 1")
    async with engine.connect() as open_connection:
        yield open_connection
    await engine.dispose()


@pytest.fixture
async def books(settings: Settings, connection: AsyncConnection) -> AsyncIterator[asyncpg.Connection]:
    plain = await asyncpg.connect(settings.asyncpg_dsn)
    yield plain
    await plain.close()


async def fill(books: asyncpg.Connection, rows: int, *, recorded_at: datetime = OLD) -> None:
    for number in range(rows):
        await write_outbox(books, 0, [entry_recorded(number)], recorded_at=recorded_at)


async def relayed(books: asyncpg.Connection, seq: int) -> None:
    await books.execute("INSERT INTO relayed (shard, seq) VALUES (0, $1)", seq)


async def seqs_left(books: asyncpg.Connection) -> list[int]:
    return [row["seq_last"] for row in await books.fetch("SELECT seq_last FROM outbox ORDER BY seq_last")]


async def drop(connection: AsyncConnection, settings: Settings) -> int:
    async with connection.begin():
        return await drop_relayed_outbox(connection, settings)


async def test_a_partition_that_is_old_and_published_goes(
    books: asyncpg.Connection, connection: AsyncConnection, settings: Settings
) -> None:
    await fill(books, 15)
    await relayed(books, 12)
    assert await drop(connection, settings) == 1
    assert await seqs_left(books) == [10, 11, 12, 13, 14, 15]
    assert await drop(connection, settings) == 0


@pytest.mark.parametrize("seq", [8, 9])
async def test_the_partition_with_the_last_published_row_stays(
    books: asyncpg.Connection, connection: AsyncConnection, settings: Settings, seq: int
) -> None:
    await fill(books, 15)
    await relayed(books, seq)
    assert await drop(connection, settings) == 0
    assert await seqs_left(books) == list(range(1, 16))


async def test_nothing_goes_where_nothing_was_published(
    books: asyncpg.Connection, connection: AsyncConnection, settings: Settings
) -> None:
    await fill(books, 15)
    assert await drop(connection, settings) == 0


async def test_a_partition_whose_last_row_is_young_stays(
    books: asyncpg.Connection, connection: AsyncConnection, settings: Settings
) -> None:
    await fill(books, 8)
    await fill(books, 7, recorded_at=datetime.now(UTC) - timedelta(days=6))
    await relayed(books, 15)
    assert await drop(connection, settings) == 0
    assert await drop(connection, replace(settings, outbox_retention_days=5.0)) == 1


async def test_a_busy_outbox_is_left_for_the_next_time(
    books: asyncpg.Connection, connection: AsyncConnection, settings: Settings
) -> None:
    await fill(books, 15)
    await relayed(books, 12)
    async with books.transaction():
        await books.execute("SELECT count(*) FROM outbox")
        async with asyncio.timeout(10):
            assert await drop(connection, settings) == 0
    assert await drop(connection, settings) == 1
