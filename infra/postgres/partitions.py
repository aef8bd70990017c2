"""What grows is partitioned by (shard, seq): made ahead, attached without making writers wait."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

PARTITIONED = ("events", "entries", "postings", "outbox")
AHEAD = 2


async def make_partitions(connection: AsyncConnection, partition_rows: int) -> int:
    """Make the partitions that the next seqs of each shard need, and a default for what was missed; say how many.

    `CREATE … PARTITION OF` would wait for writers and make them wait; `ATTACH` of a table made beforehand doesn't.
    Partition n of a shard holds seqs n·rows to (n+1)·rows − 1; a span that rows of the default stand in stays there.
    """
    made = 0
    shards = (await connection.execute(text("SELECT shard, next_seq FROM shards ORDER BY shard"))).all()
    existing = {
        name
        for (name,) in await connection.execute(
            text("SELECT c.relname FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid")
        )
    }
    for table in PARTITIONED:
        if f"{table}_default" not in existing:
            await connection.exec_driver_sql(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
            made += 1
        for shard, next_seq in shards:
            first = next_seq // partition_rows
            for number in range(first, first + AHEAD):
                span = (number * partition_rows, (number + 1) * partition_rows)
                name = f"{table}_s{shard}_{span[0]}"
                if name not in existing and not await _default_has(connection, table, shard, span):
                    await _attach(connection, table, name, shard, span)
                    made += 1
    return made


async def _default_has(connection: AsyncConnection, table: str, shard: int, span: tuple[int, int]) -> bool:
    column = "seq_last" if table == "outbox" else "seq"
    found = await connection.exec_driver_sql(
        f"SELECT EXISTS (SELECT FROM {table}_default"
        f" WHERE shard = {shard} AND {column} >= {span[0]} AND {column} < {span[1]})"
    )
    return bool(found.scalar_one())


async def _attach(connection: AsyncConnection, table: str, name: str, shard: int, span: tuple[int, int]) -> None:
    await connection.exec_driver_sql(
        f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
    )
    await connection.exec_driver_sql(
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({shard}, {span[0]}) TO ({shard}, {span[1]})"
    )
