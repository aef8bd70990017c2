"""What relays in other processes are told of new outputs."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from infra.kafka.wakeups import CHANNEL
from infra.outbox import OutboxRow

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
            await _sleep_unless_news(self._news, stop)
            self._news.clear()
            shards, self._shards = self._shards, set()
            try:
                await self._pool.execute(
                    "SELECT pg_notify($1, shard::text) FROM unnest($2::int[]) AS shard", CHANNEL, list(shards)
                )
            except Exception as fault:
                # Only a hint: a relay that doesn't hear of it finds it at its next poll.
                log.debug("relays weren't told (%r)", fault)


async def _sleep_unless_news(news: asyncio.Event, stop: asyncio.Event) -> None:
    """Wait for one of two events."""
    waiting = {asyncio.create_task(news.wait()), asyncio.create_task(stop.wait())}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
