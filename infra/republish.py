"""Publishes again what was published before: the same bytes, ids, keys and headers, and `ledger-replay: true`.

Outside of the relay's transactions and seals: its cursor stays where it is, and no seal counts what is sent here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer

from infra.kafka.connection import client_arguments
from infra.kafka.seals import read_last_seal
from infra.kafka.transactions import headers_of
from infra.outbox import TOPIC_INDEX, TOPICS, TYPE_INDEX, Header, OutboxRow, Output, unpack
from infra.settings import Settings, SettingsError

REPLAYED: Header = ("ledger-replay", b"true")
REQUEST_BYTES_MAX = 3 * 1024 * 1024
CHUNK_OUTPUTS = 500
# While balances are sent their shard is locked.
LOCKED_SECONDS = 8.0
_BALANCE = (TOPIC_INDEX["balances"], TYPE_INDEX["balance.changed.v1"])

# A query under the lock that turned to a scan of all balances would hold up the workers.
_SESSION = {"application_name": "ledgerstream republish", "enable_seqscan": "off", "enable_hashjoin": "off",
            "enable_mergejoin": "off"}  # fmt: skip

_KEPT = "SELECT min(seq_first) AS first_kept, min(recorded_at) AS since FROM outbox WHERE shard = $1"
_ROWS = """
SELECT seq_first, seq_last, epoch, recorded_at, head_hash, body
FROM outbox
WHERE shard = $1 AND seq_last > $2 AND seq_first <= $3
    AND recorded_at BETWEEN coalesce($4, '-infinity'::timestamptz) AND coalesce($5, 'infinity'::timestamptz)
ORDER BY seq_last
LIMIT 1
"""
_VERSIONS = """
SELECT account_id::text || ':' || currency AS key, version
FROM balances JOIN unnest($2::uuid[], $3::text[]) AS named (account_id, currency) USING (account_id, currency)
WHERE shard = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Outputs of a shard by seq, both ends included, or of all shards by when they were recorded."""

    shard: int | None = None
    seq_first: int = 1
    seq_last: int = 2**62
    since: datetime | None = None
    until: datetime | None = None


@dataclass(slots=True)
class Republished:
    """How many outputs went to each topic (short name); `outdated` balances have a later state and were left out."""

    topics: Counter[str] = field(default_factory=Counter)
    outdated: int = 0


class _Placed(NamedTuple):
    seq: int
    row: OutboxRow
    output: Output


async def republish(
    settings: Settings, wanted: Range, *, told: Callable[[int], None] = lambda count: None
) -> Republished:
    """Send what the outbox still has of this range, shard by shard, each in order; acknowledged when this returns.

    To `ledger.balances`, which keeps the last state of each key, only states go that are still true: the shard is
    locked while they are sent, for some milliseconds, so that no later one comes before.
    Raises: SettingsError when a part of the range has left the outbox or isn't published yet; KafkaError, OSError.
    """
    connection = await asyncpg.connect(settings.asyncpg_dsn, server_settings=_SESSION)
    producer = AIOKafkaProducer(
        **client_arguments(settings), enable_idempotence=True, linger_ms=5, max_request_size=REQUEST_BYTES_MAX
    )
    done = Republished()
    try:
        ranges = await _bounded(settings, connection, wanted)
        await producer.start()
        for shard, first, last in ranges:
            async for chunk in _chunks(connection, shard, wanted, first, last):
                await _send_chunk(settings, connection, producer, shard, chunk, done)
                told(len(chunk))
    finally:
        await producer.stop()
        await connection.close()
    return done


async def _bounded(settings: Settings, connection: asyncpg.Connection, wanted: Range) -> list[tuple[int, int, int]]:
    """(shard, first seq, last seq) of what may be sent. Raises: SettingsError when that isn't all that was asked."""
    shards = range(settings.shards) if wanted.shard is None else [wanted.shard]
    ranges = []
    for shard in shards:
        if shard >= settings.shards:
            raise SettingsError(f"there is no shard {shard}; this ledger has shards 0 to {settings.shards - 1}")
        seal = await read_last_seal(settings, shard)
        sealed = seal.seq_last if seal is not None else 0
        if wanted.shard is not None and wanted.seq_last > sealed:
            raise SettingsError(
                f"shard {shard} is published up to seq {sealed}, not to {wanted.seq_last}; what comes after is the "
                "relay's to publish"
            )
        kept = await connection.fetchrow(_KEPT, shard)
        assert kept is not None
        first_kept = kept["first_kept"] if kept["first_kept"] is not None else sealed + 1
        if _is_gone(wanted, first_kept, kept["since"]):
            raise SettingsError(
                f"shard {shard}: outputs before seq {first_kept} have left the outbox (they are kept for "
                f"LEDGER_OUTBOX_RETENTION_DAYS, {settings.outbox_retention_days:g} now), so this range can't be "
                f"published again whole; begin at seq {first_kept}"
                + (f" or at {kept['since'].isoformat()}" if kept["since"] is not None else "")
            )
        ranges.append((shard, wanted.seq_first, min(wanted.seq_last, sealed)))
    return ranges


def _is_gone(wanted: Range, first_kept: int, since: datetime | None) -> bool:
    if first_kept <= 1:
        return False
    if wanted.shard is not None:
        return wanted.seq_first < first_kept
    return wanted.since is None or since is None or wanted.since < since


async def _chunks(
    connection: asyncpg.Connection, shard: int, wanted: Range, first: int, last: int
) -> AsyncIterator[list[_Placed]]:
    after = first - 1
    while after < last:
        found = await connection.fetchrow(_ROWS, shard, after, last, wanted.since, wanted.until)
        if found is None:
            return
        row = OutboxRow(*found)
        placed = [
            _Placed(seq, row, output)
            for seq, output in enumerate(unpack(row.body), row.seq_first)
            if first <= seq <= last
        ]
        for start in range(0, len(placed), CHUNK_OUTPUTS):
            yield placed[start : start + CHUNK_OUTPUTS]
        after = row.seq_last


async def _send_chunk(
    settings: Settings,
    connection: asyncpg.Connection,
    producer: AIOKafkaProducer,
    shard: int,
    chunk: Sequence[_Placed],
    done: Republished,
) -> None:
    balances = [placed for placed in chunk if (placed.output.topic, placed.output.type) == _BALANCE]
    others = [placed for placed in chunk if (placed.output.topic, placed.output.type) != _BALANCE]
    await _send(settings, producer, shard, others, done)
    if not balances:
        return
    async with asyncio.timeout(LOCKED_SECONDS), connection.transaction():
        await connection.execute("SELECT 1 FROM shards WHERE shard = $1 FOR UPDATE", shard)
        current = await _current(connection, shard, balances)
        await _send(settings, producer, shard, current, done)
    done.outdated += len(balances) - len(current)


async def _current(connection: asyncpg.Connection, shard: int, balances: Sequence[_Placed]) -> list[_Placed]:
    """Those that are the last state of their account and currency in the books."""
    keys = [(placed.output.key or b"").decode() for placed in balances]
    accounts, currencies = zip(*(key.split(":", 1) for key in keys), strict=True)
    rows = await connection.fetch(_VERSIONS, shard, list(accounts), list(currencies))
    versions = {row["key"]: row["version"] for row in rows}
    return [
        placed
        for key, placed in zip(keys, balances, strict=True)
        if orjson.loads(placed.output.value or b"{}")["data"]["version"] == versions.get(key)
    ]


async def _send(
    settings: Settings, producer: AIOKafkaProducer, shard: int, outputs: Sequence[_Placed], done: Republished
) -> None:
    """Acknowledged by all replicas when this returns."""
    waiting = []
    for seq, row, output in outputs:
        waiting.append(
            await producer.send(
                settings.topic(TOPICS[output.topic]),
                output.value,
                key=output.key,
                partition=output.partition,
                timestamp_ms=int(row.recorded_at.timestamp() * 1000),
                headers=[*headers_of(output, epoch=row.epoch, shard=shard, seq=seq), REPLAYED],
            )
        )
    await asyncio.gather(*waiting)
    done.topics.update(TOPICS[placed.output.topic] for placed in outputs)
