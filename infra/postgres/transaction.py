"""The database transaction of many statements that writes to the ledger: it locks its shard and holds it to commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from infra.postgres.writes import Connection


@asynccontextmanager
async def shard_locked(connection: Connection, shard: int) -> AsyncIterator[None]:
    """Hold a shard's row for the block, then commit; after an exception, roll back.

    Begins and locks in one round trip. Nothing is read in it: under READ COMMITTED a statement that waits for the
    lock goes on with the snapshot of before, and would miss what the other one committed. FOR NO KEY UPDATE lets
    `tenants` refer to the row meanwhile.
    """
    # Statements that share a round trip take no parameters; a shard is a number.
    await connection.execute(f"BEGIN; SELECT FROM shards WHERE shard = {int(shard)} FOR NO KEY UPDATE")
    try:
        yield
    except Exception:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.execute("ROLLBACK")
        raise
    await commit(connection)


async def commit(connection: Connection) -> None:
    """Raises: RuntimeError where Postgres rolled back instead, as it does after an error that nobody told of."""
    said = await connection.execute("COMMIT")
    if said != "COMMIT":
        raise RuntimeError(f"Postgres answered COMMIT with {said}")
