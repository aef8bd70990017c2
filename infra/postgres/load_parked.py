"""Load parked events: those that a batch may set free, and those whose turn or time has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.pgproto import pgproto

from domain.books import Books
from domain.decide import RESUMED_MAX
from domain.events import Event
from domain.keys import Key
from domain.needs import Needs
from infra.postgres.writes import Connection
from infra.records import InputRecord, Origin

ReadCommand = Callable[[str, bytes], Any]
"""From an event's type and the JSON of its data, as journaled, to its command."""

PARKED_MAX = RESUMED_MAX
_NO_ID = UUID(int=0)
"""The journal keeps a topic's name, not its id."""


async def load_waiting(connection: Connection, books: Books, needs: Needs, read_command: ReadCommand) -> None:
    """Load who waits for what the batch may make, and who waits for what those may make, and so on."""
    asked: set[Key] = set()
    left = PARKED_MAX
    while (keys := needs.arrivals - asked) and left > 0:
        asked |= keys
        rows = await connection.fetch(
            f"""
            SELECT {EVENT_COLUMNS}, p.waits_for
            FROM unnest($2::uuid[]) AS arriving (waits_for)
            CROSS JOIN LATERAL (
                SELECT * FROM parked WHERE shard = $1 AND waits_for = arriving.waits_for OFFSET 0
            ) AS p
            CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
            ORDER BY p.seq
            LIMIT $3
            """,
            books.shard,
            [pgproto.UUID(key) for key in keys],
            left,
        )
        left -= len(rows)
        for row in rows:
            event = parked_event(row, read_command)
            waits_for = Key(row["waits_for"].bytes)
            books.waiting.setdefault(waits_for, deque()).append(event)
            name_needs(event, needs)
    books.waiting_whole = left > 0


EVENT_COLUMNS = (
    "e.seq, e.tenant_id, e.type, e.source, e.event_id, e.idempotency_key, e.traceparent, e.occurred_at,"
    ' e.fingerprint, e.code, e.data, e.topic, e.partition, e."offset"'
)


def parked_event(row: asyncpg.Record, read_command: ReadCommand) -> Event:
    """Rebuild an event from the row of its parking."""
    data = row["data"].encode()
    return Event(
        type=row["type"],
        tenant_id=row["tenant_id"],
        source=row["source"],
        event_id=row["event_id"],
        occurred_at=row["occurred_at"],
        command=read_command(row["type"], data),
        fingerprint=row["fingerprint"],
        idempotency_key=row["idempotency_key"],
        traceparent=row["traceparent"],
        parked_seq=row["seq"],
        carried=Origin(data, _record(row)),
    )


def _record(row: asyncpg.Record) -> InputRecord | None:
    """Where its record stands: what becomes of the event says so, too."""
    if row["topic"] is None:
        return None
    return InputRecord(row["topic"], _NO_ID, row["partition"], row["offset"], 0, None, None, ())


def name_needs(event: Event, needs: Needs) -> None:
    """Add what one event needs to a batch's needs."""
    needs.tenants.add(event.tenant_id)
    event.command.needs(event.tenant_id, needs)
    if event.arrives is not None:
        needs.arrivals.add(event.arrives)


async def load_arrived(
    connection: Connection, shard: int, limit: int, read_command: ReadCommand
) -> list[tuple[Event, str]]:
    """Parked events whose turn has come, in the order of their parking, with the code of their wait."""
    rows = await connection.fetch(
        f"""
        SELECT {EVENT_COLUMNS}
        FROM parked p
        CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
        WHERE p.shard = $1 AND p.arrived
        ORDER BY p.seq
        LIMIT $2
        """,
        shard,
        limit,
    )
    return [(parked_event(row, read_command), row["code"]) for row in rows]


async def load_overdue(
    connection: Connection, shard: int, now: datetime, limit: int, read_command: ReadCommand
) -> list[tuple[Event, str]]:
    """Parked events whose patience is over, in the order of their parking, with the code they are rejected with."""
    rows = await connection.fetch(
        f"""
        SELECT {EVENT_COLUMNS}
        FROM (
            SELECT seq
            FROM parked
            WHERE shard = $1 AND expires_at <= $2 AND NOT arrived
            ORDER BY expires_at, seq
            LIMIT $3
        ) AS p
        CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
        ORDER BY p.seq
        """,
        shard,
        now,
        limit,
    )
    return [(parked_event(row, read_command), row["code"]) for row in rows]


async def load_parked(
    connection: Connection, shard: int, seqs: Sequence[int], read_command: ReadCommand
) -> list[tuple[Event, str]]:
    """Those of the events parked at these seqs that still wait, with the code they are rejected with."""
    rows = await connection.fetch(
        f"""
        SELECT {EVENT_COLUMNS}
        FROM (SELECT seq FROM parked WHERE shard = $1 AND seq = ANY($2::bigint[]) AND NOT arrived) AS p
        CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
        ORDER BY p.seq
        """,
        shard,
        list(seqs),
    )
    return [(parked_event(row, read_command), row["code"]) for row in rows]
