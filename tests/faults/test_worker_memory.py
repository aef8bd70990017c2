"""A worker's memory doesn't grow with what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from infra.settings import Settings
from schemas.topics import READ_TOPICS
from tests.fixtures.programs import running
from tests.fixtures.relay import books
from tests.fixtures.traffic import Sent, payment, publish

__all__ = ["books"]

MIB = 1 << 20
RESIDENT_MIB_MAX = 300
LARGE_EACH = 24
SMALL = 50_000


def large() -> list[Sent]:
    """Values as large as may be, on every topic and partition: dead letters, which are kept whole until committed."""
    return [
        Sent(topic, b"%d" % number, b"[" + b"%07d," % number * (MIB // 8 - 1) + b"0]", "")
        for topic in READ_TOPICS
        for number in range(LARGE_EACH)
    ]


def small() -> list[Sent]:
    return [payment(number, tenant=f"t{number % 8}", customer_id=f"c{number % 500}") for number in range(SMALL)]


@pytest.mark.parametrize("backlog", [large, small])
async def test_a_backlog_of_any_kind_takes_less_than_300_mib(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path, backlog: Callable[[], list[Sent]]
) -> None:
    sent = backlog()
    await publish(settings, sent)
    async with running(settings, "worker", tmp_path / "log") as program:
        await until_read(books, len(sent))
        peak = peak_mib(program.process.pid)
    print(f"{len(sent)} records: {peak:.0f} MiB at most")
    assert peak < RESIDENT_MIB_MAX


async def until_read(books: asyncpg.Connection, records: int) -> None:
    async with asyncio.timeout(40):
        while (await books.fetchval("SELECT sum(next_offset) FROM input_offsets") or 0) < records:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
