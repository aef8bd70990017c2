"""The whole pipe: from payments waiting in Kafka to the last output committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg

from consumers.bench_ledger import administer, make_ledger
from infra.devstack import RunningStack
from infra.kafka.seals import read_last_seal
from infra.settings import Settings
from tests.benchmarks.payments import fill, payments, tenants_of_all_shards
from tests.benchmarks.processes import Usage, role, watched


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst measured: how many payments a second, and what it took."""

    name: str
    payments: int
    seconds: float
    usage: Usage

    @property
    def per_second(self) -> float:
        return self.payments / self.seconds


async def fresh_ledger(stack: RunningStack, name: str) -> Settings:
    """A database and topics of their own, so that no run meets what another left."""
    await administer(stack, f"CREATE DATABASE bench_{name}")
    settings = Settings(
        database_url=stack.database_url.rsplit("/", 1)[0] + f"/bench_{name}",
        kafka_bootstrap=stack.kafka_bootstrap,
        topic_prefix=f"bench-{name}.",
        group_id=f"bench-{name}",
    )
    await make_ledger(settings)
    return settings


async def measure(
    stack: RunningStack,
    name: str,
    *,
    bursts: Sequence[int],
    accounts: int,
    log: Path,
    workers: int = 1,
    one_tenant: bool = False,
) -> list[Burst]:
    """Several bursts into one fresh ledger, one after the other; each waits in Kafka before the workers start."""
    settings = await fresh_ledger(stack, name)
    tenants = tenants_of_all_shards(settings.shards)
    measured = []
    done = 0
    for number, count in enumerate(bursts, 1):
        load = payments(
            count, accounts=accounts, tenants=tenants[:1] if one_tenant else tenants, seed=1, burst=f"{name}{number}"
        )
        await fill(settings, load, count, f"{name}, burst {number}")
        with ExitStack() as running:
            relay = running.enter_context(role("relay", settings, log))
            await asyncio.sleep(2)
            started = [running.enter_context(role("worker", settings, log)) for _ in range(workers)]
            names = {f"worker {number}" if workers > 1 else "worker": each for number, each in enumerate(started, 1)}
            usage = watched(stack, **names, relay=relay)
            usage.begin()
            seconds = await _until_sealed(settings, done + count, done, usage)
        done += count
        measured.append(Burst(f"{name}, burst {number}", count, seconds, usage))
    return measured


async def _until_sealed(settings: Settings, total: int, before: int, usage: Usage) -> float:
    """Seconds from the first batch's commit of this burst to the seal of its last output."""
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        first = None
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            read = await connection.fetchval("SELECT coalesce(sum(next_offset), 0) FROM input_offsets")
            if first is None and read > before:
                # What the first batch had is work done before the clock started: count the time it took, too.
                first = time.monotonic()
            if read >= total and await _all_sealed(settings, connection):
                assert first is not None
                took = time.monotonic() - first
                usage.look()
                return took
            if first is not None and read < total:
                usage.look()
            await asyncio.sleep(0.05 if first is None or read >= total else 0.5)
        raise TimeoutError(f"{read} of {total} payments were read in 600 s")
    finally:
        await connection.close()


async def _all_sealed(settings: Settings, connection: asyncpg.Connection) -> bool:
    rows = await connection.fetch("SELECT shard, next_seq - 1 AS last FROM shards WHERE next_seq > 1")
    for shard, last in rows:
        seal = await read_last_seal(replace(settings, client_id="bench"), shard)
        if seal is None or seal.seq_last < last:
            return False
    return True
