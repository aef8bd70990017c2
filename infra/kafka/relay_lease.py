"""Who should run the relay of which shard: advisory locks of one Postgres session.

They only keep relays out of each other's way. Who may write is for Kafka to say, which fences the older producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

import asyncpg

from infra.kafka.wakeups import CHANNEL, RelayWakeups
from infra.settings import Settings

CONNECT_SECONDS = 10.0
QUERY_SECONDS = 10.0

# What asyncpg raises when a server goes away, and what passes by itself. InternalClientError: the server ended the
# session just when a query began.
POSTGRES_FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def lock_key(ledger_id: UUID, what: str) -> int:
    """A 64-bit advisory lock that nobody else uses by chance."""
    digest = blake2b(ledger_id.bytes + what.encode(), digest_size=8, person=b"relay").digest()
    return int.from_bytes(digest, "big", signed=True)


class RelayLease:
    """A relay process's share of the shards, held as long as its session lives."""

    def __init__(self, connection: asyncpg.Connection, ledger_id: UUID, shards: Sequence[int]) -> None:
        self._connection = connection
        self._shards = shards
        self._keys = {shard: lock_key(ledger_id, f"shard {shard}") for shard in shards}
        self._members = lock_key(ledger_id, "members")
        self.ledger_id = ledger_id
        self.held: set[int] = set()
        self.lost = asyncio.Event()

    @classmethod
    async def connect(cls, settings: Settings, shards: Sequence[int], wakeups: RelayWakeups) -> RelayLease:
        """A new session, that also hears of new rows. Raises: OSError, asyncpg's errors, TimeoutError."""
        connection = await asyncpg.connect(
            settings.asyncpg_dsn,
            timeout=CONNECT_SECONDS,
            server_settings={
                "application_name": "ledgerstream relay",
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "2",
            },
        )
        try:
            ledger_id = await connection.fetchval("SELECT ledger_id FROM ledger")
            lease = cls(connection, ledger_id, shards)
            connection.add_termination_listener(lambda _: lease.lost.set())
            await connection.add_listener(CHANNEL, _waker(wakeups))
            await connection.execute("SELECT pg_advisory_lock_shared($1)", lease._members)
        except BaseException:
            connection.terminate()
            raise
        return lease

    async def close(self) -> None:
        """Give everything back. Never raises."""
        try:
            await self._connection.close(timeout=1.0)
        except POSTGRES_FAULTS:
            self._connection.terminate()

    async def share(self) -> int:
        """How many shards each of the relays now running should have."""
        # An advisory lock of one bigint shows as two halves.
        members: int = await self._fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (classid::bigint << 32 | objid::bigint) = $1",
            self._members,
        )
        return -(-len(self._shards) // max(1, members))

    async def take(self, most: int) -> list[int]:
        """Lock shards that nobody holds until we hold `most`; returns those that are new."""
        taken = []
        for shard in self._shards:
            if len(self.held) >= most:
                break
            if shard not in self.held and await self._fetchval("SELECT pg_try_advisory_lock($1)", self._keys[shard]):
                self.held.add(shard)
                taken.append(shard)
        return taken

    async def give_back(self, shard: int) -> None:
        """Let another process have this shard; stop publishing first."""
        self.held.discard(shard)
        await self._fetchval("SELECT pg_advisory_unlock($1)", self._keys[shard])

    async def _fetchval(self, query: str, argument: int) -> Any:
        return await self._connection.fetchval(query, argument, timeout=QUERY_SECONDS)


def _waker(wakeups: RelayWakeups) -> Any:
    def wake(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        if isinstance(payload, str) and payload.isdigit():
            wakeups.notify(int(payload))

    return wake
