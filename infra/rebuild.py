"""`ledgerstream replay journal`: an empty database made ready, each shard rebuilt, and the result held against it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import asyncpg

from infra.digest import TableDigest, table_digests
from infra.journal import JournalDifferenceError, Rebuilder, open_target
from infra.ledger import LedgerRules
from infra.outbox import TOPICS as OUTPUTS
from infra.postgres.load import ReadCommand
from infra.postgres.migrate import migrate
from infra.postgres.reading import reading
from infra.settings import Settings, SettingsError
from schemas.topics import TOPICS

# Whose they are is decided once; they are copied, not rebuilt.
_COPIED = {
    "topics": ("topic", "partitions"),
    "input_offsets": ("topic", "topic_id", "partition", "next_offset", "updated_at"),
    "relayed": ("shard", "seq", "updated_at"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Up to where each shard is rebuilt, and the partition counts of the output topics."""

    until: Mapping[int, int]
    partitions: Mapping[str, int]

    @property
    def outputs(self) -> int:
        return sum(self.until.values()) - len(self.until)


def target_of(settings: Settings, into: str) -> Settings:
    """The settings of the database that is rebuilt."""
    if into == settings.need_database_url():
        raise SettingsError("--into names the ledger itself; name another, empty database")
    return replace(settings, database_url=into)


async def prepare(settings: Settings, into: str) -> Plan:
    """Make the target ready, or find a rebuild that was cut off. Raises: SettingsError when it is another ledger's.

    Writes, in the target: the schema, and whose ledger it is.
    """
    target_settings = target_of(settings, into)
    await migrate(target_settings)
    source = await asyncpg.connect(settings.asyncpg_dsn, timeout=10)
    target = await asyncpg.connect(target_settings.asyncpg_dsn, timeout=10)
    try:
        until = {row[0]: row[1] for row in await source.fetch("SELECT shard, next_seq FROM shards")}
        await _claim_target(source, target, until)
        counts = {row[0]: row[1] for row in await source.fetch("SELECT topic, partitions FROM topics")}
        partitions = {name: counts.get(settings.topic(name), settings.shards) for name in OUTPUTS}
        return Plan(until, partitions)
    finally:
        await source.close()
        await target.close()


async def _claim_target(source: asyncpg.Connection, target: asyncpg.Connection, until: Mapping[int, int]) -> None:
    ours = await source.fetchval("SELECT ledger_id FROM ledger")
    theirs = await target.fetchval("SELECT ledger_id FROM ledger")
    at = {row[0]: row[1] for row in await target.fetch("SELECT shard, next_seq FROM shards")}
    empty = all(seq == 1 for seq in at.values())
    if ours != theirs and not empty:
        raise SettingsError("the database named by --into has another ledger in it; name an empty one")
    if any(at[shard] > seq for shard, seq in until.items()):
        raise SettingsError("the database named by --into is further than this ledger; name an empty one")
    await target.execute("UPDATE ledger SET ledger_id = $1", ours)


async def rebuild_shard(
    settings: Settings, into: str, plan: Plan, rules: LedgerRules, read_command: ReadCommand, shard: int
) -> None:
    """Rebuild one shard, from where an earlier rebuild ended. Raises: JournalDifferenceError."""
    source = await asyncpg.connect(settings.asyncpg_dsn, timeout=10)
    target = await open_target(target_of(settings, into).asyncpg_dsn)
    try:
        await Rebuilder(target, rules, read_command, shard).rebuild(source, plan.until[shard])
    finally:
        await source.close()
        target.terminate()


def rules_of(settings: Settings, plan: Plan) -> LedgerRules:
    """The rules of the ledger that is rebuilt: those of the settings, which should be what they were."""
    return LedgerRules(
        shards=settings.shards,
        partitions=plan.partitions,
        value_bytes_max={name: TOPICS[name].max_message_bytes for name in OUTPUTS},
        registered_only=settings.tenants == "registered",
        patience_seconds=settings.parking_patience,
        hold_expiry_seconds=settings.hold_expiry,
        accounts_cached_max=settings.accounts_cached_max * settings.shards,
        group=settings.group_id,
    )


async def rebuilt_outputs(into: str) -> int:
    """How many outputs the target has by now."""
    connection = await asyncpg.connect(into.replace("postgres://", "postgresql://"), timeout=10)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(next_seq - 1), 0) FROM shards"))
    finally:
        await connection.close()


async def finish(settings: Settings, into: str, plan: Plan) -> dict[str, bool]:
    """Copy the read positions, and say of each table whether both ledgers have the same; none if the source went on.

    Raises: JournalDifferenceError when one differs.
    """
    target_settings = target_of(settings, into)
    source = await asyncpg.connect(settings.asyncpg_dsn, timeout=10)
    target = await asyncpg.connect(target_settings.asyncpg_dsn, timeout=10)
    try:
        now = {row[0]: row[1] for row in await source.fetch("SELECT shard, next_seq FROM shards")}
        if now != plan.until:
            return {}
        for table, columns in _COPIED.items():
            rows = await source.fetch(f"SELECT {', '.join(columns)} FROM {table}")
            async with target.transaction():
                await target.execute(f"DELETE FROM {table}")
                await target.copy_records_to_table(table, records=[tuple(row) for row in rows], columns=columns)
    finally:
        await source.close()
        await target.close()
    ours, theirs = await asyncio.gather(_digests(settings), _digests(target_settings))
    same = {table: digest == theirs.get(table) for table, digest in ours.items()}
    if not all(same.values()):
        names = ", ".join(table for table, fits in same.items() if not fits)
        raise JournalDifferenceError(
            f"the rebuilt ledger differs in {names}; `ledgerstream digest --tables` shows each, "
            "`ledgerstream verify --deep` which of the two is wrong"
        )
    return same


async def _digests(settings: Settings) -> dict[str, TableDigest]:
    async with reading(settings) as connection:
        return {row["table"]: row async for row in table_digests(connection)}
