"""Save: all effects of a decided batch, in as many statements whatever its size; few where it is small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from asyncpg.pgproto import pgproto

from domain.books import Books
from domain.decide import Decided
from domain.events import Parked
from domain.keys import Key
from infra.outbox import OutboxRow
from infra.postgres.load_first import ShardState
from infra.postgres.save_accounts import save_accounts
from infra.postgres.save_flows import save_flows
from infra.postgres.save_journal import save_claims, save_journal
from infra.postgres.writes import Change, MovedError, NeedsLockError, Target, Writes
from infra.records import DeadLetter, OffsetSwap

_DEAD_LETTERS = Target(
    "dead_letters",
    {
        "shard": "smallint",
        "seq": "bigint",
        "topic": "text",
        "topic_id": "uuid",
        "partition": "integer",
        "offset": "bigint",
        "timestamp_ms": "bigint",
        "code": "text",
        "message": "text",
        "key": "bytea",
        "value": "bytea",
        "headers": "bytea",
        "recorded_at": "timestamptz",
    },
)
_PARKED = Target(
    "parked",
    {
        "shard": "smallint",
        "seq": "bigint",
        "waits_for": "uuid",
        "expires_at": "timestamptz",
        "arrived": "boolean",
    },
)
_RESUMED = "DELETE FROM parked WHERE shard = {0} AND seq = ANY({1}::bigint[]) {still}"
_OUTBOX = Target(
    "outbox",
    {
        "shard": "smallint",
        "seq_last": "bigint",
        "seq_first": "bigint",
        "epoch": "integer",
        "recorded_at": "timestamptz",
        "head_hash": "bytea",
        "body": "bytea",
    },
)
_ADVANCE = """
    UPDATE shards SET next_seq = {1}, head_hash = {2}, last_recorded_at = {3}
    WHERE shard = {0} {still}
    RETURNING next_seq
"""
_FIRST_OFFSET = """
    INSERT INTO input_offsets (topic, topic_id, partition, next_offset)
    VALUES ({0}, {1}, {2}, {3})
    ON CONFLICT DO NOTHING
    RETURNING next_offset
"""
_NEXT_OFFSET = """
    UPDATE input_offsets
    SET next_offset = {3}, updated_at = now()
    WHERE topic = {0} AND topic_id = {1} AND partition = {2} AND next_offset = {4} {still}
    RETURNING next_offset
"""
# Whoever holds a row is not waited for: when the wait is over the time that was decided at may be long past.
_STILL = """
    SELECT FROM shards
    WHERE shard = {0} AND epoch = {1} AND next_seq = {2} AND head_hash = {3}
    FOR NO KEY UPDATE SKIP LOCKED
"""
_STILL_READ = """
    SELECT FROM shards AS s, input_offsets AS i
    WHERE s.shard = {0} AND s.epoch = {1} AND s.next_seq = {2} AND s.head_hash = {3}
        AND i.topic = {4} AND i.topic_id = {5} AND i.partition = {6} AND i.next_offset = {7}
    FOR NO KEY UPDATE SKIP LOCKED
"""


class OffsetMovedError(Exception):
    """The read position isn't where this reader left it: somebody else has the partition, or the database went back."""


class TenantMovedError(Exception):
    """A tenant was registered on another shard in the meantime: resolve again."""


@dataclass(slots=True)
class Waiting:
    """Who begins to wait, whose waiting is over, and what has arrived with some of them left for later."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    over: set[int] = field(default_factory=set)
    arrived: set[Key] = field(default_factory=set)

    def note(self, books: Books, decided: Decided, expires_at: datetime) -> None:
        self.over |= {handled.resumes for handled in decided.handled if handled.resumes is not None}
        self.rows += [
            (books.shard, handled.seq, pgproto.UUID(handled.outcome.waits_for), expires_at, False)
            for handled in decided.handled
            if isinstance(handled.outcome, Parked)
        ]
        self.arrived |= decided.left_waiting


async def save_waiting(writes: Writes, books: Books, waiting: Waiting) -> None:
    """Write who waits now, take out whose waiting is over, and mark whose turn comes in a later transaction."""
    over, arrived = waiting.over, waiting.arrived
    writes.insert(_PARKED, [row for row in waiting.rows if row[1] not in over])
    if over:
        writes.change(_RESUMED, (books.shard, list(over)))
    if arrived:
        await writes.flush()
        await writes.connection.execute(
            "UPDATE parked SET arrived = true WHERE shard = $1 AND waits_for = ANY($2::uuid[]) AND NOT arrived",
            books.shard,
            [pgproto.UUID(key) for key in arrived],
        )


async def save_tenants(writes: Writes, books: Books) -> None:
    """Write new tenants and closed periods. Raises: TenantMovedError, NeedsLockError."""
    if books.new_tenants:
        connection = writes.connection
        names = sorted(books.new_tenants)
        await connection.execute(
            "INSERT INTO tenants (tenant_id, shard) SELECT n, $2 FROM unnest($1::text[]) n ON CONFLICT DO NOTHING",
            names,
            books.shard,
        )
        elsewhere = await connection.fetch(
            "SELECT tenant_id FROM tenants WHERE tenant_id = ANY($1::text[]) AND shard <> $2", names, books.shard
        )
        if elsewhere:
            raise TenantMovedError(", ".join(row["tenant_id"] for row in elsewhere))
    if books.periods_closed:
        closed = [(tenant_id, books.closed_through[tenant_id]) for tenant_id in sorted(books.periods_closed)]
        await writes.connection.execute(
            """
            INSERT INTO periods (shard, tenant_id, closed_through)
            SELECT $1, n.*
            FROM unnest($2::text[], $3::date[]) AS n
            ON CONFLICT (shard, tenant_id) DO UPDATE
            SET closed_through = excluded.closed_through
            """,
            books.shard,
            *zip(*closed, strict=True),
        )


# --- in once, out once ----------------------------------------------------------------------------------------------


async def save_dead_letters(writes: Writes, books: Books, letters: Sequence[tuple[int, DeadLetter]]) -> None:
    """Write records that were no events, with the seqs at which they go out."""
    rows = []
    for seq, letter in letters:
        record = letter.record
        headers = orjson.dumps([[name, None if text is None else text.hex()] for name, text in record.headers])
        rows.append(
            (
                books.shard,
                seq,
                record.topic,
                record.topic_id,
                record.partition,
                record.offset,
                record.timestamp_ms,
                letter.code,
                letter.message,
                record.key,
                record.value,
                headers,
                books.recorded_at,
            )
        )
    writes.insert(_DEAD_LETTERS, rows)


async def save_outbox(writes: Writes, shard: int, row: OutboxRow) -> None:
    """Write what goes out."""
    last = (row.seq_last, row.seq_first, row.epoch, row.recorded_at, row.head_hash, row.body)
    writes.insert(_OUTBOX, [(shard, *last)])


def still(shard: int, state: ShardState, swap: OffsetSwap | None) -> Change:
    """Whether a shard and a read position stand where they stood and nobody holds them, for `Writes`; locks both.

    Whoever writes to a shard advances it, and whoever recovers it gives it another epoch: where it stands as it did
    when it was read, nothing that was read of it since has changed. Raises: NeedsLockError.
    """
    stood = (shard, state.epoch, state.next_seq, state.head)
    if swap is None:
        return _STILL, stood
    if swap.expected is None:
        raise NeedsLockError
    return _STILL_READ, (*stood, swap.topic, swap.topic_id, swap.partition, swap.expected)


def advance_shard(books: Books, head: bytes) -> Change:
    """Where the shard stands now."""
    return _ADVANCE, (books.shard, books.next_seq, head, books.recorded_at)


async def finish(writes: Writes, changes: Sequence[Change], swap: OffsetSwap | None) -> None:
    """Write what waits, these changes and the read position.

    The position moves from where this reader left it: a zombie's batch ends here.
    Raises: OffsetMovedError; the transaction must end then. NeedsLockError; nothing was written then.
    """
    if swap is None:
        if await writes.flush(*changes) is None and writes.ahead and changes:
            raise MovedError("the shard has moved")
        return
    place = (swap.topic, swap.topic_id, swap.partition, swap.next_offset)
    moves = (_FIRST_OFFSET, place) if swap.expected is None else (_NEXT_OFFSET, (*place, swap.expected))
    if await writes.flush(*changes, moves) is None:
        if writes.ahead:
            raise MovedError("the shard or the read position has moved")
        raise OffsetMovedError(f"{swap.topic}[{swap.partition}] isn't at {swap.expected} any more")


__all__ = [
    "Change",
    "MovedError",
    "NeedsLockError",
    "OffsetMovedError",
    "TenantMovedError",
    "Waiting",
    "Writes",
    "advance_shard",
    "finish",
    "save_accounts",
    "save_claims",
    "save_dead_letters",
    "save_flows",
    "save_journal",
    "save_outbox",
    "save_tenants",
    "save_waiting",
    "still",
]
