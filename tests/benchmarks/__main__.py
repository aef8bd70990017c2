"""`make bench`: how fast the pipe is on this machine, beside what else could be done on it."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from consumers.bench_ledger import reuse_wal
from infra.devstack import RunningStack, down, up
from tests.benchmarks.latency import Latency, measure_latency
from tests.benchmarks.naive import measure_naive
from tests.benchmarks.pipe import Burst, measure
from tests.benchmarks.replay import measure_replay
from tests.benchmarks.tpcb import measure_tpcb

console = Console(width=100)


def main() -> None:
    """Measure on an embedded stack of its own, then remove it."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--payments", type=int, default=200_000, help="of each burst")
    parser.add_argument("--accounts", type=int, default=10_000, help="customers that the spread bursts go to")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--only", choices=("pipe", "hot", "latency", "replay", "naive", "tpcb"), help="one part alone")
    asked = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="ledgerstream-bench-"))
    stack = up(data, progress=lambda line: console.print(f"[dim]{line}"))
    try:
        asyncio.run(_measure_all(stack, asked, data))
    finally:
        down(data, wipe=True)


async def _measure_all(stack: RunningStack, asked: argparse.Namespace, data: Path) -> None:
    bursts: list[Burst] = []
    rates: dict[str, float] = {}
    latencies: list[Latency] = []
    log = data / "ledger.log"
    count = asked.payments
    await reuse_wal(stack)
    try:
        if asked.only in (None, "pipe"):
            bursts += await measure(
                stack, "spread", bursts=[count, count], accounts=asked.accounts, workers=asked.workers, log=log
            )
        if asked.only in (None, "hot"):
            bursts += await measure(stack, "hot", bursts=[count], accounts=1, workers=asked.workers, log=log)
        if asked.only in (None, "latency"):
            for per_second in (50, 200):
                latencies.append(await measure_latency(stack, per_second=per_second, seconds=10, log=log))
        if asked.only in (None, "replay"):
            replayed = await measure_replay(stack, count=count, accounts=asked.accounts, processes=asked.workers)
            console.print(replayed.told())
        if asked.only in (None, "naive"):
            rates["the consumer one would write first"] = await measure_naive(
                stack, count=max(500, count // 100), accounts=asked.accounts
            )
        if asked.only in (None, "tpcb"):
            rates["pgbench, TPC-B, 4 clients (transactions)"] = measure_tpcb(stack, seconds=10)
    except BaseException:
        if log.exists():
            console.print(log.read_text()[-3000:], markup=False)
        raise
    if bursts or rates:
        _show(bursts, rates)
    for latency in latencies:
        console.print(
            f"One at a time, {latency.per_second} a second, to a read_committed subscriber: p50 {latency.p50:.1f} ms,"
            f" p95 {latency.p95:.1f}, p99 {latency.p99:.1f}"
        )


def _show(bursts: list[Burst], rates: dict[str, float]) -> None:
    console.print(f"{platform.platform()}, {os.cpu_count()} cores, {platform.python_version()}")
    table = Table(title="Payments a second, from waiting in Kafka to the last output committed; CPU seconds of each")
    processes = list(dict.fromkeys(name for burst in bursts for name in burst.usage.cpu_seconds))
    for column in ("", "per second", "seconds", *processes):
        table.add_column(column, justify="left" if not column else "right")
    for burst in bursts:
        cpu = burst.usage.cpu_seconds
        table.add_row(
            burst.name,
            f"{burst.per_second:,.0f}",
            f"{burst.seconds:.1f}",
            *(f"{cpu.get(name, 0):.1f}" for name in processes),
        )
    for name, rate in rates.items():
        console.print(f"{name}: {rate:,.0f} a second")
    console.print(table)
    memory = Table(title="The most memory seen, MB")
    for column in ("", *processes):
        memory.add_column(column, justify="left" if not column else "right")
    for burst in bursts:
        seen = burst.usage.memory_mb
        memory.add_row(burst.name, *(f"{seen.get(name, 0):.0f}" for name in processes))
    console.print(memory)
    naive = rates.get("the consumer one would write first")
    if bursts and naive:
        console.print(f"The pipe is {bursts[0].per_second / naive:.0f} times the consumer one would write first.")


if __name__ == "__main__":
    main()
