"""Rows of the journal as what they were: events with their commands, dead letters; and in what a handling differs."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import jiter
import orjson

from domain.events import Event, Handled
from infra.postgres.load import ReadCommand
from infra.postgres.save_journal import told_of
from infra.records import DeadLetter, InputRecord, Origin
from schemas import canonical
from schemas.fingerprint import _fingerprinter
from schemas.registry import EVENT_TYPES, RESOLUTION

_TOLD = ("seq", "outputs", "outcome", "resumes", "code", "message", "waits_for")
"""What is said of a handling, and must come out again."""

EVENT_COLUMNS = ", ".join(
    f'"{name}"'
    for name in (
        *_TOLD,
        *("type", "tenant_id", "source", "event_id", "idempotency_key", "traceparent", "occurred_at", "recorded_at"),
        *("topic", "partition", "offset", "fingerprint", "data"),
    )
)
"""The columns of `events` in the order that is read here."""

_NO_ID = UUID(int=0)
"""The journal keeps a topic's name, not its id."""


def event_of(row: asyncpg.Record, read_command: ReadCommand) -> Event:
    """The event of a row, its command read anew. Raises: whatever says that it can't be read."""
    _, _, _, resumes, _, _, _, kind, tenant_id, source, event_id, key, trace, occurred_at, _, *rest = row
    topic, partition, offset, fingerprint, text = rest
    data = text.encode()
    command = read_command(kind, data)
    if kind in EVENT_TYPES and (taken := _fingerprint(kind, data)) != fingerprint:
        raise ValueError(f"its fingerprint is {taken}, recorded is {fingerprint}")
    record = None if topic is None else InputRecord(topic, _NO_ID, partition, offset, 0, None, None, ())
    origin = Origin(data, record)
    return Event(
        kind, tenant_id, source, event_id, occurred_at, command, fingerprint, key, trace, resumes, carried=origin
    )


def _fingerprint(type_name: str, data: bytes) -> int:
    """The fingerprint of what was published: what the resolvers answered is no part of it."""
    fields = jiter.from_json(data)
    if fields.pop(RESOLUTION, None) is not None:
        data = canonical.dump(fields)
    return _fingerprinter(type_name).take(fields, data)


def letter_of(row: asyncpg.Record) -> DeadLetter:
    """The dead letter of a row."""
    headers = [(name, None if text is None else bytes.fromhex(text)) for name, text in orjson.loads(row["headers"])]
    place = (row["topic"], row["topic_id"], row["partition"], row["offset"], row["timestamp_ms"])
    return DeadLetter(InputRecord(*place, row["key"], row["value"], headers), row["code"], row["message"])


def difference(row: asyncpg.Record, handled: Handled) -> str | None:
    """In what a handling isn't as recorded."""
    kind, outputs, code, message, waits_for = told_of(handled.outcome)
    told = (handled.seq, outputs, kind, handled.resumes, code, message, waits_for)
    recorded = row[: len(_TOLD)]
    if told == recorded:
        return None
    for name, value, was in zip(_TOLD, told, recorded, strict=True):
        if value != was:
            return f"{name} is recorded as {was!r}, and comes out as {value!r}"
    return None


async def row_at(source: asyncpg.Pool, shard: int, seq: int) -> tuple[str, int]:
    """The table and the seq of the journal's row that the output at this seq is of."""
    found = await source.fetchrow(
        """
        SELECT kept.place, kept.seq
        FROM (
            SELECT 'events' AS place, max(seq) AS seq FROM events WHERE shard = $1 AND seq <= $2
          UNION ALL
            SELECT 'dead_letters', max(seq) FROM dead_letters WHERE shard = $1 AND seq <= $2
        ) AS kept
        WHERE kept.seq IS NOT NULL
        ORDER BY kept.seq DESC
        LIMIT 1
        """,
        shard,
        seq,
    )
    return ("events", seq) if found is None else (found["place"], found["seq"])
