"""`ledgerstream replay journal`: an empty database made ready, and what was rebuilt held against the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import asyncpg

from infra.digest import TableDigest, table_digests
from infra.journal import JournalDifferenceError
from infra.outbox import TOPICS as OUTPUTS
from infra.postgres.migrate import migrate
from infra.postgres.reading import reading
from infra.rebuild_shard import Plan, target_of
from infra.settings import Settings, SettingsError

# Whose they are is decided once; they are copied, not rebuilt.
_COPIED = {
    "topics": ("topic", "partitions"),
    "input_offsets": ("topic", "topic_id", "partition", "next_offset", "updated_at"),
    "relayed": ("shard", "seq", "updated_at"),
}


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
