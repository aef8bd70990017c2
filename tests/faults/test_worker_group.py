"""Workers that join, leave, freeze and die at random while events pour in."""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from infra.settings import Settings
from tests.fixtures.programs import Program, running, start
from tests.fixtures.relay import books
from tests.fixtures.traffic import Sent, assert_each_ended_once, payment, publish, traffic

__all__ = ["books"]

# The shortest that a broker takes.
SESSION_SECONDS = 6
SHORT_SESSION = f"from infra.kafka import intake; intake.SESSION_SECONDS = {SESSION_SECONDS}"
KILLS = 6


async def trickle(settings: Settings, sent: list[Sent], *, seconds: float) -> None:
    """Publish over a while, so that something is always under way."""
    size = max(len(sent) // 20, 1)
    for begin in range(0, len(sent), size):
        await publish(settings, sent[begin : begin + size])
        await asyncio.sleep(seconds / 20)


async def test_a_worker_that_joins_and_leaves_costs_no_event(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    small = replace(settings, batch_rows_max=20)
    sent = traffic(11, 400)
    async with running(small, "run", tmp_path / "first.log"):
        load = asyncio.create_task(trickle(settings, sent, seconds=6))
        async with running(small, "worker", tmp_path / "second.log"):
            # Its share of the partitions is its own now.
            await publish(settings, [payment(f"shared-{number}", tenant=f"t{number}") for number in range(20)])
        await load
        more = [payment(f"shared-{number}", tenant=f"t{number}") for number in range(20)]
        await assert_each_ended_once(settings, sent + more)


@pytest.mark.shards(1)
async def test_a_frozen_worker_commits_nothing_after_others_took_its_partitions(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    small = replace(settings, batch_rows_max=5)
    sent = traffic(12, 60)
    zombie = await start(small, "worker", tmp_path / "zombie.log", begin=SHORT_SESSION)
    try:
        await zombie.ready()
        # Held in its batch by a lock on the shard, it freezes while it waits for its commit.
        holder = await asyncpg.connect(settings.asyncpg_dsn)
        await holder.execute("BEGIN; SELECT 1 FROM shards FOR UPDATE")
        await publish(settings, sent[:60])
        await waiting_for_the_shard(books)
        zombie.process.send_signal(signal.SIGSTOP)
        await holder.close()
        async with running(small, "run", tmp_path / "next.log", begin=SHORT_SESSION) as successor:
            await publish(settings, sent[60:])
            await assert_each_ended_once(settings, sent)
            zombie.process.send_signal(signal.SIGCONT)
            more = traffic(13, 20)
            await publish(settings, more)
            await assert_each_ended_once(settings, sent + more)
            assert successor.process.returncode is None
        assert await zombie.stop() == 0
    finally:
        await zombie.kill()


async def waiting_for_the_shard(books: asyncpg.Connection) -> None:
    async with asyncio.timeout(20):
        while not await books.fetchval(  # noqa: ASYNC110
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.02)


async def test_workers_and_relays_that_die_at_random_lose_and_double_nothing(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    chance = random.Random(20261121)
    sent = traffic(14, 1_000)
    small = replace(settings, batch_rows_max=50, relay_transaction_rows_max=100)
    load = asyncio.create_task(trickle(settings, sent, seconds=10))
    for number in range(KILLS):
        # A group of its own each, so that none waits for the session of the dead to run out.
        each = replace(small, group_id=f"{settings.group_id}{number}")
        programs: list[Program] = [
            await start(each, command, tmp_path / f"{command}{number}.log") for command in ("worker", "relay")
        ]
        try:
            await programs[0].ready()
            await asyncio.sleep(chance.uniform(0.05, 1.0))
        finally:
            for program in programs:
                await program.kill()
    await load
    async with running(replace(small, group_id=f"{settings.group_id}last"), "run", tmp_path / "last.log"):
        await assert_each_ended_once(settings, sent)
