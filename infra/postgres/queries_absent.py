"""What there is instead of what was asked for: why a name leads to nothing, and what would have led to something."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Table, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.postgres.queries_places import NotFound, looked_up
from infra.postgres.tables import events, idempotency_keys, parked

NAMED_MAX = 3
LOOKED_AT_MAX = 200
"""How many rows of a shard are looked at for something of the same tenant: an answer of no must not cost a scan."""


async def why_absent(
    connection: AsyncConnection, shard: int, key: UUID, missing: str, there: Sequence[str], *, kinds: str
) -> NotFound:
    """Say that something isn't there: refused, waited for, or never heard of; then what of its kind is there.

    `missing`: the first half of the sentence, "tenant 'acme' has no hold 'h1'"; `kinds`: "holds".
    """
    claimed = (idempotency_keys.c.shard == shard, idempotency_keys.c.key == key)
    event = looked_up(
        events, "event", "type", "outcome", "code", "seq", shard=idempotency_keys.c.shard, seq=idempotency_keys.c.seq
    )
    query = select(event).select_from(idempotency_keys.join(event, true())).where(*claimed)
    row = (await connection.execute(query.where(event.c.outcome == "rejected"))).one_or_none()
    if row is not None:
        return NotFound(
            f"{missing}: {row.type} was rejected {row.code}; see `ledgerstream rejections show {shard}-{row.seq}`"
        )
    waiting = await connection.scalar(
        select(func.count()).select_from(parked).where(parked.c.shard == shard, parked.c.waits_for == key)
    )
    if waiting:
        return NotFound(f"{missing} yet; events that wait for it: {waiting}, see `ledgerstream parked list`")
    return NotFound(missing + named(there, kinds))


def named(there: Sequence[str], kinds: str) -> str:
    """The end of such a sentence: what there is, the first few of it."""
    if not there:
        return ""
    more = ", …" if len(there) > NAMED_MAX else ""
    return f"; {kinds} that it has: {', '.join(there[:NAMED_MAX])}{more}"


async def some_of(connection: AsyncConnection, table: Table, shard: int, tenant_id: str, *names: str) -> list[str]:
    """A few things of a tenant, each by its names, among the first rows of its shard."""
    columns = [table.c[name] for name in names]
    looked_at = (
        select(table.c.tenant_id, *columns)
        .where(table.c.shard == shard)
        .order_by(*table.primary_key.columns)
        .limit(LOOKED_AT_MAX)
        .subquery()
    )
    query = select(*(looked_at.c[name] for name in names)).where(looked_at.c.tenant_id == tenant_id)
    found = await connection.execute(query.limit(NAMED_MAX + 1))
    return sorted(" ".join(repr(part) for part in row) for row in found)
