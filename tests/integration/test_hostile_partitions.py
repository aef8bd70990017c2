"""What grows gets its room while others work, however long somebody reads."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from consumers.clock import make_room
from infra.postgres.migrate import migrate
from infra.settings import Settings
from tests.fixtures.desk import desk_on, payment

SECONDS_MAX = 30.0


@pytest.fixture
async def small(empty_database_url: str) -> Settings:
    """A ledger of one shard whose partitions are soon full."""
    settings = Settings(database_url=empty_database_url, shards=1, partition_rows=20)
    await migrate(settings)
    return settings


async def test_making_room_keeps_no_writer_waiting_behind_a_long_report(small: Settings) -> None:
    backup = await asyncpg.connect(small.asyncpg_dsn)
    try:
        async with desk_on(small) as desk:
            for number in range(8):
                await desk.apply(payment(f"p{number}"))
            async with backup.transaction():
                # Like a backup, which reads every table in one database transaction, for hours.
                await backup.fetch("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM outbox)")
                making = asyncio.create_task(make_room(small))
                async with asyncio.timeout(SECONDS_MAX):
                    for number in range(8, 40):
                        await desk.apply(payment(f"p{number}"))
                    await making
            await desk.pool.execute("UPDATE shards SET next_seq = 200")
            await make_room(small)
            assert await desk.pool.fetchval("SELECT to_regclass('outbox_s0_200')"), "the report over, there is room"
    finally:
        await backup.close()
