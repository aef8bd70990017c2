"""What relays in other processes are told of new outputs."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from infra.kafka.wakeups import CHANNEL
from infra.outbox import OutboxRow
from infra.patience import any_of

log = logging.getLogger(__name__)


class Announcer:
    """Tells relays in other processes of new outputs, one NOTIFY for what came meanwhile, after the commits."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._shards: set[int] = set()
        self._news = asyncio.Event()

    def announce(self, shard: int, _row: OutboxRow) -> None:
        """There is something new in the outbox of this shard, committed."""
        self._shards.add(shard)
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Pass it on until `stop`."""
        while not stop.is_set():
            await any_of(self._news, stop)
            self._news.clear()
            shards, self._shards = self._shards, set()
            try:
                await self._pool.execute(
                    "SELECT pg_notify($1, shard::text) FROM unnest($2::int[]) AS shard", CHANNEL, list(shards)
                )
            except Exception as fault:
                # Only a hint: a relay that doesn't hear of it finds it at its next poll.
                log.debug("relays weren't told (%r)", fault)
