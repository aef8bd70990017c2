"""On which shard a tenant lives, as far as this process has asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import asyncpg

from domain.administration import TenantCreate
from domain.events import Event
from infra.kafka.partitioner import partition_of
from infra.postgres.errors import ours
from infra.postgres.load import Connection
from infra.rules import LedgerRules

_SHARDS = "SELECT tenant_id, shard FROM tenants WHERE tenant_id = ANY($1::text[])"


class TenantShards:
    """What the database has said of tenants and their shards; that never changes."""

    def __init__(self, pool: asyncpg.Pool, rules: LedgerRules) -> None:
        self._pool = pool
        self._rules = rules
        self._known: dict[str, int] = {}

    def get(self, tenant_id: str) -> int | None:
        """The shard of a tenant, if it is known here."""
        return self._known.get(tenant_id)

    def settle(self, tenants: Iterable[str], shard: int) -> None:
        """These were registered on this shard, and it is committed."""
        for tenant_id in tenants:
            self._known[tenant_id] = shard

    async def ask(self, tenants: Iterable[str], connection: Connection | None = None) -> None:
        """Learn where these live, by a connection or any of the pool. Raises: what asyncpg raises."""
        unknown = [tenant_id for tenant_id in tenants if tenant_id not in self._known]
        if unknown:
            rows = await (self._pool if connection is None else connection).fetch(_SHARDS, unknown)
            self._known |= {row["tenant_id"]: row["shard"] for row in rows}

    async def of(self, events: Sequence[Event]) -> list[int]:
        """The shard of each event's tenant. Raises: TransientError.

        A tenant that isn't registered goes where its first event says, by default where its hash does.
        """
        try:
            await self.ask({event.tenant_id for event in events})
        except Exception as error:
            raise ours(error) from error
        found: dict[str, int] = {}
        shards = []
        for event in events:
            shard = self._known.get(event.tenant_id)
            if shard is None:
                shard = found.get(event.tenant_id)
            if shard is None:
                shard = self._first_shard(event)
                # Where tenants are registered, what comes before `tenant.create` is refused and settles nothing.
                if not self._rules.registered_only or isinstance(event.command, TenantCreate):
                    found[event.tenant_id] = shard
            shards.append(shard)
        return shards

    def _first_shard(self, event: Event) -> int:
        command = event.command
        # A shard that isn't there has no row to lock; the domain refuses it on the shard of the tenant's hash.
        if isinstance(command, TenantCreate) and command.shard is not None and command.shard < self._rules.shards:
            return command.shard
        return partition_of(event.tenant_id.encode(), self._rules.shards)
