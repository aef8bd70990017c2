"""Whether time has brought anything about on a shard: seen without its lock, so that nobody waits for the look."""

from __future__ import annotations

from datetime import datetime

from infra.postgres.writes import Connection

_DUE = """
    SELECT
        EXISTS (SELECT FROM parked WHERE shard = $1 AND arrived)
        OR EXISTS (SELECT FROM parked WHERE shard = $1 AND expires_at <= now.here AND NOT arrived)
        OR EXISTS (SELECT FROM holds WHERE shard = $1 AND status = 'pending' AND expires_at <= now.here)
        OR EXISTS (SELECT FROM authorizations WHERE shard = $1 AND status = 'approved' AND expires_at <= now.here)
    FROM (SELECT greatest($2, last_recorded_at) AS here FROM shards WHERE shard = $1) AS now
"""


async def anything_due(connection: Connection, shard: int, now: datetime) -> bool:
    """Whether anything parked has its turn or lost patience, or any hold or authorization has run out."""
    return bool(await connection.fetchval(_DUE, shard, now))
