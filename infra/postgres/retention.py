"""What was published long ago leaves the outbox, by whole partitions."""

from __future__ import annotations

import re
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.settings import Settings

# Dropping a partition locks the whole outbox: better not now than making writers wait.
_LOCK_TIMEOUT = "200ms"
_PARTITION = re.compile(r"outbox_s(\d+)_\d+")
_LOCK_NOT_AVAILABLE = "55P03"


async def drop_relayed_outbox(connection: AsyncConnection, settings: Settings) -> int:
    """Drop the outbox partitions that are past their retention and relayed to the last row; say how many.

    Call it in a database transaction of its own, and commit at once. Keeps the partition with the last relayed row,
    against which the relay checks its seal; one that is busy is left for the next time.
    """
    names = await connection.execute(
        text(
            "SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid"
            " WHERE inhparent = 'outbox'::regclass ORDER BY relname"
        )
    )
    dropped = 0
    for name in names.scalars().all():
        match = _PARTITION.fullmatch(name)
        if match and await _is_done_with(connection, name, int(match[1]), settings):
            dropped += await _drop(connection, name)
    return dropped


async def _is_done_with(connection: AsyncConnection, name: str, shard: int, settings: Settings) -> bool:
    """Whether the last relayed row stands in a later partition, so that all of this one were relayed."""
    found = await connection.execute(
        text(
            "SELECT last.recorded_at < now() - CAST(:retention AS interval) AND relayed.seq > last.seq_last"
            f" FROM (SELECT seq_last, recorded_at FROM {name} WHERE shard = :shard ORDER BY seq_last DESC LIMIT 1) last"
            " JOIN relayed ON relayed.shard = :shard"
        ),
        {"shard": shard, "retention": timedelta(days=settings.outbox_retention_days)},
    )
    return bool(found.scalar_one_or_none())


async def _drop(connection: AsyncConnection, name: str) -> int:
    try:
        async with connection.begin_nested():
            await connection.execute(text("SELECT set_config('lock_timeout', :most, true)"), {"most": _LOCK_TIMEOUT})
            await connection.execute(text(f"DROP TABLE {name}"))
    except DBAPIError as fault:
        if getattr(fault.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        return 0
    return 1
