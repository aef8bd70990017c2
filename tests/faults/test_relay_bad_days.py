"""Kafka or Postgres away, at start and later: the relay waits, says so once, and goes on."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from infra import devstack
from infra.kafka.connection import quiet_aiokafka, wait_for_kafka
from infra.kafka.topics import ensure_topics
from infra.outbox import Output
from infra.postgres.migrate import migrate
from infra.settings import Settings
from tests.fixtures.outbox import balance_changed, entry_recorded, write_outbox
from tests.fixtures.relay import running_relay
from tests.fixtures.subscriber import assert_once_and_in_order, committed, sealed

SHARDS = 2
DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[devstack.RunningStack]:
    """Servers that these tests may kill."""
    data = tmp_path_factory.mktemp("badday")
    yield devstack.up(data)
    devstack.down(data, wipe=True)


@pytest.fixture
def data(own_stack: devstack.RunningStack) -> Path:
    assert own_stack.data is not None
    return own_stack.data


@pytest.fixture
async def ledger(own_stack: devstack.RunningStack) -> Settings:
    """A new ledger on those servers."""
    name = f"badday_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(own_stack.database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    settings = Settings(
        database_url=urlsplit(own_stack.database_url)._replace(path=f"/{name}").geturl(),
        kafka_bootstrap=own_stack.kafka_bootstrap,
        topic_prefix=f"{name}.",
        client_id="badday",
        shards=SHARDS,
    )
    quiet_aiokafka(settings)
    await migrate(settings)
    async with asyncpg.create_pool(settings.asyncpg_dsn, min_size=1, max_size=1) as pool:
        await ensure_topics(settings, pool)
    return settings


def pair(number: int) -> list[Output]:
    return [balance_changed(number, partitions=SHARDS), entry_recorded(number, partitions=SHARDS)]


async def write(settings: Settings, rows: int) -> None:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        for number in range(rows):
            for shard in range(SHARDS):
                await write_outbox(connection, shard, pair(number))
    finally:
        await connection.close()


async def all_sealed(settings: Settings, rows: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        for shard in range(SHARDS):
            await sealed(settings, shard, 2 * rows)


async def assert_all_published(settings: Settings, rows: int) -> None:
    """Once the relay has ended: then the markers of its transactions are written everywhere."""
    records = await committed(settings, "balances", "entries")
    for shard in range(SHARDS):
        assert_once_and_in_order(records, epoch=1, shard=shard, seq_last=2 * rows)


async def test_kafka_killed_under_way_and_away_at_start(
    ledger: Settings, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="infra")
    one_row_each = replace(ledger, relay_transaction_rows_max=2)
    before = asyncio.all_tasks()
    async with running_relay(one_row_each):
        await write(ledger, 20)
        await asyncio.to_thread(devstack.kill_kafka, data)
        await write(ledger, 20)
        await said(caplog, "the relay of shard 0: in doubt")
    assert asyncio.all_tasks() - before == set()
    caplog.clear()
    waiting = asyncio.create_task(wait_for_kafka(ledger))
    async with running_relay(one_row_each):
        await said(caplog, "Kafka at ")
        await said(caplog, "the relay of shard 0: in doubt")
        await asyncio.to_thread(devstack.start_kafka, data)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await waiting
        await all_sealed(ledger, 40)
        await said(caplog, f"Kafka at {ledger.kafka_bootstrap}: fine again")
        await said(caplog, "the relay of shard 0: fine again")
    await assert_all_published(ledger, 40)
    # A line for a change of state, none for a try.
    assert len([record for record in caplog.records if record.name.startswith("infra")]) < 20


async def test_postgres_killed_under_way(ledger: Settings, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running_relay(replace(ledger, relay_transaction_rows_max=2)):
        await write(ledger, 20)
        await asyncio.to_thread(devstack.kill_postgres, data)
        await said(caplog, "the relay: Postgres is away")
        await asyncio.to_thread(devstack.start_postgres, data)
        await write(ledger, 20)
        await all_sealed(ledger, 40)
    await assert_all_published(ledger, 40)


async def said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Return when a log line has this text."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if any(text in record.getMessage() for record in caplog.records):
                return
            await asyncio.sleep(0.01)
