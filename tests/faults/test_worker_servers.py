"""Kafka or Postgres killed under load: the ledger waits, says so once, goes on, and each event ends once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from infra import devstack
from infra.settings import Settings
from tests.fixtures.breakable import breakable, breakable_stack, data
from tests.fixtures.programs import Program, running
from tests.fixtures.traffic import Sent, assert_each_ended_once, publish, traffic

__all__ = ["breakable", "breakable_stack", "data"]


async def some_applied(settings: Settings, count: int) -> None:
    """Return in the middle of the load."""
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT count(*) FROM events") < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


def told(program: Program, text: str) -> int:
    return sum(text in line for line in program.lines())


async def under_load(settings: Settings, seed: int) -> tuple[list[Sent], asyncio.Task[None]]:
    """Traffic that is half published and half on its way."""
    sent = traffic(seed, 400)
    await publish(settings, sent[:600])
    started = asyncio.Event()
    rest = asyncio.create_task(publish(settings, sent[600:], started))
    await started.wait()
    return sent, rest


@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_a_server_killed_under_load_costs_no_event(
    breakable: Settings, data: Path, tmp_path: Path, server: str
) -> None:
    kill = {"postgres": devstack.kill_postgres, "kafka": devstack.kill_kafka}[server]
    restart = {"postgres": devstack.start_postgres, "kafka": devstack.start_kafka}[server]
    async with running(breakable, "run", tmp_path / "log", LEDGER_BATCH_ROWS_MAX="20") as program:
        sent, rest = await under_load(breakable, 7)
        await some_applied(breakable, 40)
        await asyncio.to_thread(kill, data)
        await program.said("trying again")
        await asyncio.to_thread(restart, data)
        await rest
        await program.said("fine again")
        await assert_each_ended_once(breakable, sent)
    assert told(program, "Traceback") == 0
    # A line for each reader, role and kind of fault, not one for each try.
    assert len(program.lines()) < 120
