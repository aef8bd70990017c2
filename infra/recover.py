"""After a database was restored, or failed over to a standby that lacks the last commits: a new epoch.

The streams then have outputs that the books haven't. What the books say from there on goes out under a new epoch, so
that no output's id is ever used twice with other content, and a seal of it says from where on it counts. The inputs of
what was lost are read again, because the read positions went back with the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from infra.faultpoints import reached
from infra.kafka.connection import quiet_aiokafka
from infra.kafka.lag import reaches
from infra.kafka.published import place_of, published_since
from infra.kafka.relay_lease import lock_key
from infra.kafka.seal_history import SealHistory, fence, newest_seal, publish_seal, seal_history, seals_reader
from infra.kafka.seals import Seal
from infra.kafka.topics import ensure_topics, topic_ids
from infra.outbox import TOPICS, TYPE_INDEX, TYPES, Output, unpack
from infra.postgres.migrate import GENESIS_HEAD
from infra.recover_outbox import move_outputs
from infra.settings import Settings, SettingsError
from schemas.topics import READ_TOPICS

ALONE_SECONDS = 5.0
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# What the chain covers; `balance.changed` follows from it, and older states of a balance may be compacted away.
_COMPARED = tuple(name for name in TOPICS if name != "balances")


class RecoveryRefusedError(SettingsError):
    """Recovering now could do harm; the message says why, and the way out."""


@dataclass(slots=True)
class ShardFinding:
    """How the books of a shard and its streams fit together.

    `agreed` is the last seq up to which both have the same; `lost` counts what only the streams have after it,
    `renamed` what only the books have after it and publish under the new epoch.
    """

    shard: int
    state: str
    """fits, books_behind, diverged, streams_behind"""
    epoch_old: int
    epoch_new: int
    seq_books: int
    seq_streams: int
    agreed: int
    lost: int
    renamed: int
    history: SealHistory

    @property
    def broken(self) -> bool:
        """Whether the relay can't go on under the old epoch."""
        return self.state in ("books_behind", "diverged")


@dataclass(slots=True)
class InputFinding:
    """What of an input partition is still to be read; `gone` records were deleted before these books read them."""

    topic: str
    partition: int
    next_offset: int
    unread: int
    gone: int


@dataclass(slots=True)
class Recovery:
    """What was found, and what was done about it: with `epoch` None, nothing."""

    epoch: int | None
    finished_before: bool
    """Whether an earlier recovery had been cut off and was brought to its end."""
    shards: list[ShardFinding]
    inputs: list[InputFinding] = field(default_factory=list)


async def recover(settings: Settings, *, force: bool = False, dry_run: bool = False) -> Recovery:
    """Begin a new epoch where the streams have what the books haven't; harmless where they fit, and when run again.

    Writes: shards, outbox, recoveries and relayed in one database transaction, then a seal for each shard that
    differed.
    `force` begins a new epoch even if nothing differs, or if nothing fits. `dry_run` writes nothing.
    Raises: RecoveryRefusedError while workers or relays run, or where this looks like another ledger; KafkaError.
    """
    quiet_aiokafka(settings)
    connection = await asyncpg.connect(
        settings.asyncpg_dsn, timeout=10, server_settings={"application_name": "ledgerstream recover"}
    )
    try:
        ledger_id = await connection.fetchval("SELECT ledger_id FROM ledger")
        async with _alone(connection, ledger_id):
            await ensure_topics(settings, connection)
            shards = [row["shard"] for row in await connection.fetch("SELECT shard FROM shards ORDER BY shard")]
            if not dry_run:
                # Whoever still publishes from the database that was is shut out before the last seal is read.
                for shard in shards:
                    await fence(settings, f"{ledger_id}.{shard}")
            finished = not dry_run and await _publish_missing_seals(connection, settings, ledger_id)
            async with connection.transaction():
                findings = await _judge_all(connection, settings)
                _refuse_strangers(findings, force=force)
                epoch = await _begin_epoch(connection, findings, force=force, dry_run=dry_run)
            reached("recover.committed")
            if epoch is not None and not dry_run:
                await _publish_missing_seals(connection, settings, ledger_id)
            broken = any(finding.broken for finding in findings)
            return Recovery(epoch, finished, findings, await _inputs(connection, settings) if broken else [])
    finally:
        await connection.close()


@asynccontextmanager
async def _alone(connection: asyncpg.Connection, ledger_id: UUID) -> AsyncIterator[None]:
    """Keep relays out, and make sure that no process of the ledger is at work. Raises: RecoveryRefusedError."""
    members = lock_key(ledger_id, "members")
    deadline = asyncio.get_running_loop().time() + ALONE_SECONDS
    while True:
        others = await connection.fetch(
            "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
            " AND application_name IN ('ledgerstream-worker', 'ledgerstream relay', 'ledgerstream recover')"
        )
        if not others and await connection.fetchval("SELECT pg_try_advisory_lock($1)", members):
            break
        if asyncio.get_running_loop().time() > deadline:
            who = ", ".join(f"{row['application_name']} (pid {row['pid']} in Postgres)" for row in others)
            raise RecoveryRefusedError(
                f"this ledger is at work: {who or 'a relay'}; stop every worker, relay and clock, then recover"
            )
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await connection.fetchval("SELECT pg_advisory_unlock($1)", members)


# --- what fits, and what doesn't ------------------------------------------------------------------------------------


async def _judge_all(connection: asyncpg.Connection, settings: Settings) -> list[ShardFinding]:
    """Compare every shard with its seals. The shards stay locked."""
    rows = await connection.fetch("SELECT shard, epoch, next_seq, head_hash FROM shards ORDER BY shard FOR UPDATE")
    relayed = {row["shard"]: row["seq"] for row in await connection.fetch("SELECT shard, seq FROM relayed")}
    async with seals_reader(settings) as consumer:
        findings = []
        for row in rows:
            history = await seal_history(consumer, settings, row["shard"], _Heads(connection, row).of)
            findings.append(await _judge(connection, settings, row, history, relayed.get(row["shard"], 0)))
    return findings


class _Heads:
    """The heads of one shard's books."""

    def __init__(self, connection: asyncpg.Connection, row: asyncpg.Record) -> None:
        self._connection = connection
        self._row = row

    async def of(self, seqs: Sequence[int]) -> Mapping[int, bytes]:
        rows = await self._connection.fetch(
            "SELECT seq_last, head_hash FROM outbox WHERE shard = $1 AND seq_last = ANY($2::bigint[])",
            self._row["shard"],
            list(seqs),
        )
        heads = {row["seq_last"]: row["head_hash"] for row in rows}
        return {0: GENESIS_HEAD, self._row["next_seq"] - 1: self._row["head_hash"]} | heads


async def _judge(
    connection: asyncpg.Connection, settings: Settings, row: asyncpg.Record, history: SealHistory, relayed: int
) -> ShardFinding:
    newest, last = history.newest, row["next_seq"] - 1
    agreed = 0 if history.common is None else history.common.seq_last
    known = history.common is newest and not history.stranger_on_top
    if known and (newest is None or newest.epoch <= row["epoch"]):
        state = "fits" if relayed <= agreed else "streams_behind"
    else:
        if history.following is not None:
            agreed = await _agreed(connection, settings, row["shard"], history, agreed)
        state = "books_behind" if agreed == last else "diverged"
    broken = state in ("books_behind", "diverged")
    return ShardFinding(
        row["shard"],
        state,
        row["epoch"],
        row["epoch"],
        seq_books=last,
        seq_streams=0 if newest is None else newest.seq_last,
        agreed=agreed,
        lost=history.count_after(agreed) if broken else 0,
        renamed=last - agreed if broken else 0,
        history=history,
    )


async def _agreed(
    connection: asyncpg.Connection, settings: Settings, shard: int, history: SealHistory, common: int
) -> int:
    """The last of the books' batches that was published as it is, in the first seal that the books don't have."""
    seal = history.following
    assert seal is not None
    rows = await connection.fetch(
        "SELECT seq_first, seq_last, epoch, body FROM outbox"
        " WHERE shard = $1 AND seq_last > $2 AND seq_last <= $3 ORDER BY seq_last",
        shard,
        common,
        history.spans[seal.epoch][1] if seal.epoch in history.spans else seal.seq_last,
    )
    rows = [row for row in rows if row["seq_last"] <= seal.seq_last]
    if not rows:
        return common
    published = await _published(settings, seal, history.common_ms)
    for row in rows:
        outputs = enumerate(unpack(row["body"]), row["seq_first"])
        same = row["epoch"] == seal.epoch and row["seq_first"] == common + 1
        if not same or not all(_same(published, seq, output) for seq, output in outputs):
            break
        common = row["seq_last"]
    return common


def _same(published: Mapping[int, tuple[str, Any, Any]], seq: int, output: Output) -> bool:
    if TOPICS[output.topic] not in _COMPARED:
        return True
    return published.get(seq) == (TOPICS[output.topic], output.key, output.value)


async def _published(settings: Settings, seal: Seal, since_ms: int | None) -> dict[int, tuple[str, Any, Any]]:
    """The outputs of one seal, as they stand on their topics, by seq."""
    names = {settings.topic(name): name for name in _COMPARED}
    wanted = sum(count for topic, count in seal.counts.items() if topic in names)
    found: dict[int, tuple[str, Any, Any]] = {}
    async for record in published_since(settings, _COMPARED, since_ms):
        place = place_of(record)
        if place is None or (place.epoch, place.shard) != (seal.epoch, seal.shard):
            continue
        if seal.seq_first <= place.seq <= seal.seq_last:
            found[place.seq] = (names[record.topic], record.key, record.value)
            if len(found) == wanted:
                break
    return found


def _refuse_strangers(findings: Sequence[ShardFinding], *, force: bool) -> None:
    sealed = [finding for finding in findings if finding.history.newest is not None]
    if force or not any(finding.broken for finding in sealed) or any(finding.agreed for finding in sealed):
        return
    raise RecoveryRefusedError(
        "these books and the seals in Kafka have nothing in common: is this the right database, and the right "
        "LEDGER_TOPIC_PREFIX? If all of it was lost indeed, run `ledgerstream recover --force`"
    )


# --- the new epoch --------------------------------------------------------------------------------------------------


async def _begin_epoch(
    connection: asyncpg.Connection, findings: Sequence[ShardFinding], *, force: bool, dry_run: bool
) -> int | None:
    """Raise the epoch of every shard, if it must be."""
    if not dry_run:
        for finding in findings:
            if finding.state == "streams_behind":
                await _set_relayed(connection, finding)
    if not force and not any(finding.broken for finding in findings):
        return None
    told = [finding.history.newest.epoch for finding in findings if finding.history.newest is not None]
    epoch = 1 + max([finding.epoch_old for finding in findings] + told)
    for finding in findings:
        finding.epoch_new = epoch
        if not dry_run:
            await _raise(connection, finding)
    return epoch


async def _raise(connection: asyncpg.Connection, finding: ShardFinding) -> None:
    outputs_after = finding.agreed if finding.broken else finding.seq_books
    head, recorded_at = await _at(connection, finding.shard, outputs_after)
    end = await move_outputs(connection, finding.shard, outputs_after, head, finding.epoch_new, finding.seq_books)
    await connection.execute(
        "UPDATE shards SET epoch = $2, head_hash = $3 WHERE shard = $1", finding.shard, finding.epoch_new, end
    )
    newest = finding.history.newest
    await connection.execute(
        """
        INSERT INTO recoveries (shard, epoch, next_seq, outputs_from, head_hash, recorded_at, streams_epoch,
            streams_seq, lost, sealed, recovered_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now())
        """,
        finding.shard,
        finding.epoch_new,
        finding.seq_books + 1,
        outputs_after + 1,
        head,
        recorded_at,
        0 if newest is None else newest.epoch,
        finding.seq_streams,
        finding.lost,
        finding.broken,
    )
    if finding.broken:
        await _set_relayed(connection, finding)


async def _at(connection: asyncpg.Connection, shard: int, seq: int) -> tuple[bytes, datetime]:
    """The head after a seq, and when that was recorded."""
    row = await connection.fetchrow(
        """
        SELECT head_hash, recorded_at FROM outbox WHERE shard = $1 AND seq_last = $2
        UNION ALL
        SELECT head_hash, last_recorded_at FROM shards WHERE shard = $1 AND next_seq = $2 + 1 AND $2 > 0
        LIMIT 1
        """,
        shard,
        seq,
    )
    if row is None:
        assert seq == 0, f"shard {shard}: the outbox has no row that ends at {seq}"
        return GENESIS_HEAD, _BEGINNING
    return row["head_hash"], row["recorded_at"]


async def _set_relayed(connection: asyncpg.Connection, finding: ShardFinding) -> None:
    await connection.execute(
        "INSERT INTO relayed (shard, seq) VALUES ($1, $2)"
        " ON CONFLICT (shard) DO UPDATE SET seq = excluded.seq, updated_at = now()",
        finding.shard,
        finding.agreed,
    )


async def _publish_missing_seals(connection: asyncpg.Connection, settings: Settings, ledger_id: UUID) -> bool:
    """Say in the streams where each shard's new epoch begins, if that wasn't said yet."""
    rows = await connection.fetch("SELECT DISTINCT ON (shard) * FROM recoveries ORDER BY shard, epoch DESC")
    published = False
    async with seals_reader(settings) as consumer:
        for row in [row for row in rows if row["sealed"]]:
            newest = await newest_seal(consumer, settings, row["shard"])
            if newest is None or newest.epoch < row["epoch"]:
                await publish_seal(settings, f"{ledger_id}.{row['shard']}", _first_seal(row), row["recorded_at"])
                published = True
    return published


def _first_seal(row: asyncpg.Record) -> Seal:
    """The seal of no outputs that says where an epoch begins."""
    before = row["outputs_from"] - 1
    return Seal(
        epoch=row["epoch"],
        shard=row["shard"],
        seq_first=before + 1,
        seq_last=before,
        counts={},
        head_hash=row["head_hash"],
    )


# --- what becomes of what was lost ----------------------------------------------------------------------------------


async def _inputs(connection: asyncpg.Connection, settings: Settings) -> list[InputFinding]:
    """How far these books have read each input partition, and whether the rest of it is still there."""
    names = [settings.topic(name) for name in READ_TOPICS]
    found, ids = await reaches(settings, names), await topic_ids(settings, names)
    rows = await connection.fetch("SELECT topic, topic_id, partition, next_offset FROM input_offsets")
    read = {(row["topic"], row["partition"]): row["next_offset"] for row in rows if ids.get(row[0]) == row[1]}
    return [
        InputFinding(
            topic,
            partition,
            next_offset=read.get((topic, partition), 0),
            unread=max(0, reach.end - max(reach.beginning, read.get((topic, partition), 0))),
            gone=max(0, reach.beginning - read.get((topic, partition), 0)),
        )
        for (topic, partition), reach in sorted(found.items())
    ]


async def lost_outputs(settings: Settings, recovery: Recovery) -> AsyncIterator[dict[str, Any]]:
    """Each output that the streams have and the books haven't, as far as its topic still keeps it."""
    broken = {finding.shard: finding for finding in recovery.shards if finding.broken and finding.lost}
    if not broken:
        return
    times = [finding.history.common_ms for finding in broken.values()]
    since = None if None in times else min(time for time in times if time is not None)
    async for record in published_since(settings, TOPICS, since):
        place = place_of(record)
        finding = None if place is None else broken.get(place.shard)
        if place is None or finding is None or place.seq <= finding.agreed:
            continue
        if finding.history.has(place.epoch, place.seq):
            output = f"{place.epoch}-{place.shard}-{place.seq}"
            yield {"output": output, "topic": record.topic} | _said(record.topic, record.value, settings)


def _said(topic: str, value: bytes | None, settings: Settings) -> dict[str, Any]:
    """What a lost output is about."""
    if topic == settings.topic("dead-letters"):
        return {"type": TYPES[TYPE_INDEX["dead.letter"]]}
    document = orjson.loads(value or b"{}")
    data = document.get("data", {})
    return {
        "type": document.get("type"),
        "tenant": document.get("tenantid"),
        "event": data.get("event") or data.get("cause"),
    }
