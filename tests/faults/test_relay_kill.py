"""A relay that is killed, fenced or cut off anywhere loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from dataclasses import replace

import asyncpg
import pytest

from infra.faultpoints import VARIABLE
from infra.kafka.relay import ShardRelay
from infra.kafka.relay_cursor import RelayedHints
from infra.kafka.wakeups import RelayWakeups
from infra.outbox import Output
from infra.settings import Settings
from tests.fixtures.outbox import balance_changed, entry_recorded, write_outbox
from tests.fixtures.relay import books, older_broker, running_relay
from tests.fixtures.subscriber import assert_once_and_in_order, committed, sealed, seals

__all__ = ["books", "older_broker"]

ROWS = 6


async def start_relay(settings: Settings, *, die_at: str = "") -> Process:
    """A relay process that publishes one outbox row a transaction."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")},
        "LEDGER_DATABASE_URL": settings.need_database_url(),
        "LEDGER_KAFKA_BOOTSTRAP": settings.need_kafka_bootstrap(),
        "LEDGER_TOPIC_PREFIX": settings.topic_prefix,
        "LEDGER_SHARDS": str(settings.shards),
        "LEDGER_RELAY_TRANSACTION_ROWS_MAX": "2",
        VARIABLE: die_at,
    }
    command = (sys.executable, "-m", "tests.fixtures.relay_process")
    return await asyncio.create_subprocess_exec(*command, env=environment)


def pair(number: int) -> list[Output]:
    return [balance_changed(number, partitions=1), entry_recorded(number, partitions=1)]


async def fill(books: asyncpg.Connection, shard: int = 0, rows: int = ROWS) -> None:
    for number in range(rows):
        await write_outbox(books, shard, pair(number))


async def assert_whole(settings: Settings, shard: int = 0, rows: int = ROWS) -> None:
    """Outputs and seals of these rows are there once, and one seal follows the other."""
    records = await committed(settings, "balances", "entries")
    assert_once_and_in_order(records, epoch=1, shard=shard, seq_last=2 * rows)
    said = await seals(settings, shard)
    assert [seal.seq_first for seal in said] == [1, *(seal.seq_last + 1 for seal in said[:-1])]
    assert said[-1].seq_last == 2 * rows


@pytest.mark.shards(1)
@pytest.mark.parametrize("point", ["started", "begun:3", "sent:3", "committed:3", "epoch:3"])
async def test_killed_at_any_point_it_goes_on_without_loss_or_double(
    books: asyncpg.Connection, settings: Settings, point: str
) -> None:
    await fill(books)
    relay = await start_relay(settings, die_at=f"relay.{point}")
    async with asyncio.timeout(30):
        assert await relay.wait() == -signal.SIGKILL
    async with running_relay(settings):
        await sealed(settings, 0, 2 * ROWS)
    await assert_whole(settings)


@pytest.mark.shards(1)
async def test_stopped_by_its_operator_it_ends_by_itself(books: asyncpg.Connection, settings: Settings) -> None:
    await fill(books)
    relay = await start_relay(settings)
    await sealed(settings, 0, 2 * ROWS)
    relay.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await relay.wait() == 0
    await assert_whole(settings)
    assert await books.fetchval("SELECT seq FROM relayed WHERE shard = 0") == 2 * ROWS


@pytest.mark.shards(1)
async def test_frozen_and_thawed_it_is_fenced_by_its_successor(books: asyncpg.Connection, settings: Settings) -> None:
    zombie = await start_relay(settings)
    try:
        await write_outbox(books, 0, pair(0))
        await sealed(settings, 0, 2)
        zombie.send_signal(signal.SIGSTOP)
        # What a database server does when the session's keepalives get no answer: its locks are free.
        await end_sessions(books)
        async with running_relay(settings):
            await write_outbox(books, 0, pair(1))
            await sealed(settings, 0, 4)
            zombie.send_signal(signal.SIGCONT)
            for number in range(2, ROWS):
                await write_outbox(books, 0, pair(number))
            await sealed(settings, 0, 2 * ROWS)
    finally:
        zombie.kill()
        await zombie.wait()
    await assert_whole(settings)


@pytest.mark.shards(1)
async def test_two_relays_that_both_believe_in_themselves_double_nothing(
    books: asyncpg.Connection, settings: Settings
) -> None:
    one_row_each = replace(settings, relay_transaction_rows_max=2)
    async with asyncpg.create_pool(settings.asyncpg_dsn, min_size=1, max_size=4) as pool:
        ledger_id = await pool.fetchval("SELECT ledger_id FROM ledger")
        rivals = [ShardRelay(one_row_each, pool, RelayWakeups(), RelayedHints(pool), ledger_id, 0) for _ in range(2)]
        tasks = [asyncio.create_task(rival.run()) for rival in rivals]
        for number in range(20):
            await write_outbox(books, 0, pair(number))
        await sealed(settings, 0, 40)
        for rival in rivals:
            rival.leave.set()
        await asyncio.gather(*tasks)
    await assert_whole(settings, rows=20)


@pytest.mark.shards(1)
async def test_after_its_sessions_end_it_takes_up_its_shards_again(
    books: asyncpg.Connection, settings: Settings
) -> None:
    async with running_relay(settings):
        for number in range(ROWS):
            await write_outbox(books, 0, pair(number))
            await sealed(settings, 0, 2 * (number + 1))
            if number % 2:
                await end_sessions(books)
    await assert_whole(settings)


async def end_sessions(books: asyncpg.Connection) -> None:
    await books.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'ledgerstream relay'"
    )


@pytest.mark.shards(1)
@pytest.mark.parametrize("wait", ["start", "read_last_seal", "deliver", "commit"])
async def test_cancelled_in_any_of_its_waits_it_goes_on_without_loss_or_double(
    books: asyncpg.Connection, settings: Settings, wait: str
) -> None:
    await cancel_in(books, settings, wait)


@pytest.mark.shards(1)
@pytest.mark.parametrize("wait", ["start", "deliver", "commit", "next_epoch"])
async def test_cancelled_before_an_older_broker_it_goes_on_without_loss_or_double(
    books: asyncpg.Connection, settings: Settings, older_broker: None, wait: str
) -> None:
    await cancel_in(books, settings, wait)


async def cancel_in(books: asyncpg.Connection, settings: Settings, wait: str) -> None:
    one_row_each = replace(settings, relay_transaction_rows_max=2)
    await fill(books)
    async with asyncpg.create_pool(settings.asyncpg_dsn, min_size=1, max_size=4) as pool:
        ledger_id = await pool.fetchval("SELECT ledger_id FROM ledger")
        before = asyncio.all_tasks()
        for _ in range(3):
            relay = ShardRelay(one_row_each, pool, RelayWakeups(), RelayedHints(pool), ledger_id, 0)
            task = asyncio.create_task(relay.run())
            async with asyncio.timeout(10):
                await waiting_in(task, wait)
            task.cancel()
            await asyncio.wait({task})
        assert asyncio.all_tasks() - before == set()
    async with running_relay(settings):
        await sealed(settings, 0, 2 * ROWS)
    await assert_whole(settings)


async def waiting_in(task: asyncio.Task[None], name: str) -> None:
    """Return while the task waits somewhere below a coroutine of this name."""
    while True:
        coroutine = task.get_coro()
        while coroutine is not None:
            if getattr(coroutine, "__name__", "") == name:
                return
            coroutine = getattr(coroutine, "cr_await", None)
        await asyncio.sleep(0)
