"""A ledger built again from its journal: how fast, and what an event costs."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from consumers.bench_ledger import administer, ledger_to_measure
from consumers.translate import read_command, to_event
from domain.events import Event
from infra import outbox
from infra.devstack import RunningStack
from infra.ledger import Ledger, LedgerRules
from infra.postgres.engine import open_pool
from infra.records import InputRecord
from infra.settings import Settings
from schemas.wire import WireEvent, read
from tests.benchmarks.payments import payments, tenants_of_all_shards
from tests.benchmarks.processes import environment, watched

BATCH = 1_000
BEGIN = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One replay; CPU seconds by process."""

    events: int
    outputs: int
    seconds: float
    cpu_seconds: dict[str, float]

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    def told(self) -> str:
        """For people."""
        costs = [f"{name} {1e6 * seconds / self.events:.0f}" for name, seconds in self.cpu_seconds.items()]
        return (
            f"A journal of {self.events:,} payments into an empty database: {self.per_second:,.0f} events a second"
            f" ({self.outputs / self.seconds:,.0f} outputs), {self.seconds:.1f} s with the comparison of all tables;"
            f" CPU µs an event: {', '.join(costs)}"
        )


async def measure_replay(stack: RunningStack, *, count: int, accounts: int, processes: int) -> Replayed:
    """Write a journal, then run `ledgerstream replay journal` and hold the two ledgers against each other."""
    async with ledger_to_measure(stack) as settings:
        await _write_journal(settings, count=count, accounts=accounts)
        into = f"{settings.need_database_url()}_again"
        await administer(stack, f"CREATE DATABASE {into.rsplit('/', 1)[1]}")
        try:
            return await asyncio.to_thread(_replay, stack, settings, into, count, processes)
        finally:
            await administer(stack, f"DROP DATABASE {into.rsplit('/', 1)[1]} WITH (FORCE)")


def _replay(stack: RunningStack, settings: Settings, into: str, count: int, processes: int) -> Replayed:
    command = [sys.executable, "-m", "consumers.cli", "replay", "journal", "--json"]
    command += ["--into", into, "--processes", str(processes)]
    servers = watched(stack)
    servers.begin()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, check=True)
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    servers.look()
    told = json.loads(done.stdout)
    assert told["same"], told
    ours = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Replayed(count, told["outputs"], seconds, {"replay": ours, "Postgres": servers.cpu_seconds["postgres"]})


async def _write_journal(settings: Settings, *, count: int, accounts: int) -> None:
    pool = await open_pool(settings)
    rules = LedgerRules(
        shards=settings.shards,
        partitions=dict.fromkeys(outbox.TOPICS, settings.shards),
        value_bytes_max=dict.fromkeys(outbox.TOPICS, 2 * 1024 * 1024),
    )
    clock = itertools.count()
    ledger = Ledger(pool, rules, read_command, clock=lambda: BEGIN + timedelta(milliseconds=50 * next(clock)))
    try:
        tenants = tenants_of_all_shards(settings.shards)
        for shard, tenant in enumerate(tenants):
            load = payments(count // len(tenants), accounts=accounts, tenants=[tenant], seed=shard)
            for events in _batches(_events(value for _, value in load)):
                await ledger.apply(events, shard=shard)
    finally:
        await pool.close()


def _events(values: Iterable[bytes]) -> Iterator[Event]:
    for offset, value in enumerate(values):
        wire = read(value, (), "payments")
        assert isinstance(wire, WireEvent)
        yield to_event(wire, InputRecord("ledger.payments", UUID(int=1), 0, offset, 0, None, value, ()))


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    while batch := list(itertools.islice(events, BATCH)):
        yield batch
