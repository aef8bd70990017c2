"""The journal of a shard read in its order, in what was one batch each where that is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import asyncpg

from infra.journal_rows import EVENT_COLUMNS

PAGE_ROWS = 8_000
"""How many events are read, decided and written together, at most."""
PAGE_BYTES = 32 * 1024 * 1024
PART_ROWS = 1_000


@dataclass(slots=True)
class Epochs:
    """Where the later epochs of a shard begin."""

    rows: Sequence[asyncpg.Record]

    def of_ids(self, seq: int) -> int:
        """The epoch in the ids of what the event at seq made."""
        return max([1, *(int(row["epoch"]) for row in self.rows if row["next_seq"] <= seq)])

    def of_outputs(self, seq: int) -> int:
        """The epoch in the ids of its outputs."""
        return max([1, *(int(row["epoch"]) for row in self.rows if row["outputs_from"] <= seq)])

    def cuts(self) -> set[int]:
        """The seqs before which a batch must end."""
        return {row[name] for row in self.rows for name in ("next_seq", "outputs_from")}


@dataclass(slots=True)
class Run:
    """Rows of the journal that follow one another and were recorded at the same time: events, then dead letters."""

    seq: int
    next_seq: int
    recorded_at: datetime
    events: list[asyncpg.Record] = field(default_factory=list)
    letters: list[asyncpg.Record] = field(default_factory=list)
    head: bytes | None = None
    """The head after it, where the outbox still has one."""


async def stretches(
    source: asyncpg.Pool, shard: int, start: int, until: int, epochs: Epochs
) -> AsyncIterator[list[Run]]:
    """The journal of a shard from one seq up to another, some thousand rows at a time, all of one epoch.

    The next rows are fetched while these are gone through, on a connection of their own.
    """
    cuts = epochs.cuts()
    page = await _page(source, shard, start, until, cuts) if start < until else []
    while page:
        end = page[-1].next_seq
        ahead = asyncio.create_task(_page(source, shard, end, until, cuts))
        try:
            for stretch in _by_epoch(page, cuts):
                yield stretch
            page = await ahead
        finally:
            ahead.cancel()


async def _page(source: asyncpg.Pool, shard: int, seq: int, until: int, cuts: set[int]) -> list[Run]:
    if seq >= until:
        return []
    page, more = await _events(source, shard, seq, until)
    end = page[-1]["seq"] + page[-1]["outputs"] if more else until
    span = (shard, seq, end)
    letters = await source.fetch("SELECT * FROM dead_letters WHERE shard = $1 AND seq >= $2 AND seq < $3", *span)
    heads = {
        row["seq_last"] + 1: row["head_hash"]
        for row in await source.fetch(
            "SELECT seq_last, head_hash FROM outbox WHERE shard = $1 AND seq_last >= $2 AND seq_last < $3", *span
        )
    }
    rows = sorted([*page, *letters], key=lambda row: row["seq"]) if letters else page
    found = _cut(rows, end, cuts | heads.keys())
    for run in found:
        run.head = heads.get(run.next_seq)
    if end < until and len(found) > 1 and found[-1].head is None:
        # It may go on: what was one batch shall be one again.
        found.pop()
    return found


async def _events(source: asyncpg.Pool, shard: int, seq: int, until: int) -> tuple[list[asyncpg.Record], bool]:
    """The next events, no more than fit into memory whatever their size; and whether there may be more."""
    page: list[asyncpg.Record] = []
    size = 0
    while len(page) < PAGE_ROWS and size < PAGE_BYTES:
        rows = min(PART_ROWS, PAGE_ROWS - len(page))
        part = await source.fetch(
            f"SELECT {EVENT_COLUMNS} FROM events WHERE shard = $1 AND seq >= $2 AND seq < $3 ORDER BY seq LIMIT $4",
            shard,
            seq,
            until,
            rows,
        )
        page += part
        if len(part) < rows:
            return page, False
        seq = part[-1]["seq"] + 1
        size += sum(len(row["data"]) for row in part)
    return page, True


def _by_epoch(page: Sequence[Run], cuts: set[int]) -> list[list[Run]]:
    found: list[list[Run]] = []
    for run in page:
        if not found or run.seq in cuts:
            found.append([])
        found[-1].append(run)
    return found


def _cut(rows: Sequence[asyncpg.Record], end: int, cuts: set[int]) -> list[Run]:
    found: list[Run] = []
    for row in rows:
        letter = "outputs" not in row
        run = found[-1] if found else None
        if (
            run is None
            or row["seq"] in cuts
            or row["recorded_at"] != run.recorded_at
            or (not letter and bool(run.letters))
        ):
            run = Run(row["seq"], end, row["recorded_at"])
            found.append(run)
        (run.letters if letter else run.events).append(row)
    for run, following in pairwise(found):
        run.next_seq = following.seq
    return found
