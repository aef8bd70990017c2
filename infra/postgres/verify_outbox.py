"""Prove the outputs that are still kept: each is readable, at its place, and says what the journal says."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection
from zstandard import ZstdError

from infra.outbox import DEAD_LETTER, TYPE_INDEX, TYPES, Output, unpack
from infra.postgres.tables import dead_letters, entries, outbox

ENTRY_RECORDED = TYPE_INDEX["entry.recorded.v1"]


async def outbox_faults(connection: AsyncConnection, shard: int | None) -> list[str]:
    """What is wrong with the outbox of a shard, or of all, a line per fault; none is a whole outbox."""
    faults: list[str] = []
    query: Select[Any] = select(outbox).order_by(outbox.c.shard, outbox.c.seq_last)
    if shard is not None:
        query = query.where(outbox.c.shard == shard)
    # Two reads go on at once, so the rows come batch by batch and the journal's beside them.
    async for row in await connection.stream(query, execution_options={"yield_per": 10}):
        faults += await _faults_of(connection, row)
    return faults


async def _faults_of(connection: AsyncConnection, row: Row[Any]) -> list[str]:
    place = f"outbox row {row.shard}, {row.seq_first} to {row.seq_last}"
    try:
        outputs = list(unpack(row.body))
    except (ZstdError, ValueError, IndexError, OSError) as error:
        return [f"{place} can't be read: {error}"]
    except Exception as error:
        # Whatever broken bytes make of the frames, they are this row's fault and not the end of the proof.
        return [f"{place} can't be read: {type(error).__name__}: {error}"]
    if len(outputs) != row.seq_last - row.seq_first + 1:
        return [f"{place} has {len(outputs)} outputs"]
    faults = [f"{place}: {fault}" for fault in _faults_of_outputs(row, outputs)]
    return faults + [f"{place}: {fault}" for fault in await _faults_against_journal(connection, row, outputs)]


def _faults_of_outputs(row: Row[Any], outputs: list[Output]) -> Iterator[str]:
    for seq, output in enumerate(outputs, row.seq_first):
        if output.type == DEAD_LETTER:
            continue
        try:
            event = orjson.loads(output.value or b"")
        except orjson.JSONDecodeError as error:
            yield f"the output at seq {seq} is not JSON: {error}"
            continue
        if event.get("id") != f"{row.epoch}-{row.shard}-{seq}":
            yield f"the output at seq {seq} has the id {event.get('id')}"
        if event.get("type") != TYPES[output.type]:
            yield f"the output at seq {seq} is framed as {TYPES[output.type]} and says {event.get('type')}"


async def _faults_against_journal(connection: AsyncConnection, row: Row[Any], outputs: list[Output]) -> list[str]:
    told = {
        (seq, _entry_id(output) if output.type == ENTRY_RECORDED else _letter(output.key, output.value))
        for seq, output in enumerate(outputs, row.seq_first)
        if output.type in (ENTRY_RECORDED, DEAD_LETTER)
    }
    span = [
        (table.c.shard == row.shard, table.c.seq.between(row.seq_first, row.seq_last))
        for table in (entries, dead_letters)
    ]
    kept = {
        (seq, str(entry_id))
        for seq, entry_id in await connection.execute(select(entries.c.seq, entries.c.entry_id).where(*span[0]))
    }
    letters = select(dead_letters.c.seq, dead_letters.c.key, dead_letters.c.value).where(*span[1])
    kept |= {(seq, _letter(key, value)) for seq, key, value in await connection.execute(letters)}
    return [
        f"{what} at seq {seq} is only in the {'outbox' if (seq, what) in told else 'journal'}"
        for seq, what in sorted(told ^ kept)
    ]


def _letter(key: bytes | None, value: bytes | None) -> str:
    """A dead letter, named so that another has another name."""
    content = blake2b(repr((key, value)).encode(), digest_size=8).hexdigest()
    return f"the dead letter with the content {content}"


def _entry_id(output: Output) -> str:
    try:
        return str(orjson.loads(output.value or b"")["data"]["entry_id"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "an unreadable entry"
