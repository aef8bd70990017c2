"""What grows is partitioned by (shard, seq): made ahead, attached without making writers wait."""

from __future__ import annotations

import re

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

PARTITIONED = ("events", "entries", "postings", "outbox")

# ATTACH locks the default, which nearly every query has in its plan: while it waits for a reader, a backup for example,
# all others wait behind it. Better not now than that.
_LOCK_TIMEOUT = "200ms"
_LOCK_NOT_AVAILABLE = "55P03"

_BOUNDS = """
SELECT i.inhparent::regclass::text, pg_get_expr(c.relpartbound, c.oid)
FROM pg_class c
JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relpartbound IS NOT NULL
"""
_SPAN = re.compile(r"TO \('?(\d+)'?, '?(\d+)'?\)")


async def make_partitions(connection: AsyncConnection, partition_rows: int) -> int:
    """Make the partitions that the next seqs of each shard need, and a default for what was missed; say how many.

    `CREATE … PARTITION OF` would wait for writers and make them wait; `ATTACH` of a table made beforehand doesn't.
    Each begins where the one before ends, so `partition_rows` may change; a span that rows of the default stand in
    stays there. Where somebody reads the default for long, the rest is left for the next time.
    """
    made = 0
    shards = (await connection.execute(text("SELECT shard, next_seq FROM shards ORDER BY shard"))).all()
    ends, defaults = await _existing(connection)
    for table in PARTITIONED:
        if table not in defaults:
            await connection.exec_driver_sql(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
            made += 1
        for shard, next_seq in shards:
            low = ends.get((table, shard), 0)
            # Up to a whole partition ahead of where the shard is now.
            while low < next_seq + partition_rows:
                span = (low, low + partition_rows)
                if not await _default_has(connection, table, shard, span):
                    if not await _attach(connection, table, f"{table}_s{shard}_{low}", shard, span):
                        return made
                    made += 1
                low += partition_rows
    return made


async def _existing(connection: AsyncConnection) -> tuple[dict[tuple[str, int], int], set[str]]:
    """Where the last partition of each table and shard ends, and which tables have a default."""
    ends: dict[tuple[str, int], int] = {}
    defaults: set[str] = set()
    for table, bound in await connection.execute(text(_BOUNDS)):
        found = _SPAN.search(bound)
        if found is None:
            defaults.add(table)
        else:
            place = (table, int(found[1]))
            ends[place] = max(ends.get(place, 0), int(found[2]))
    return ends, defaults


async def _default_has(connection: AsyncConnection, table: str, shard: int, span: tuple[int, int]) -> bool:
    column = "seq_last" if table == "outbox" else "seq"
    found = await connection.exec_driver_sql(
        f"SELECT EXISTS (SELECT FROM {table}_default"
        f" WHERE shard = {shard} AND {column} >= {span[0]} AND {column} < {span[1]})"
    )
    return bool(found.scalar_one())


async def _attach(connection: AsyncConnection, table: str, name: str, shard: int, span: tuple[int, int]) -> bool:
    """Make one partition; False if its default is busy."""
    try:
        async with connection.begin_nested():
            await connection.execute(text("SELECT set_config('lock_timeout', :most, true)"), {"most": _LOCK_TIMEOUT})
            await connection.exec_driver_sql(
                f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
            )
            await connection.exec_driver_sql(
                f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({shard}, {span[0]})"
                f" TO ({shard}, {span[1]})"
            )
    except DBAPIError as fault:
        if getattr(fault.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        return False
    return True
