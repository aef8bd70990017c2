"""Holds: parts of a balance set aside."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.reservations import hold_key
from infra.postgres.queries_absent import some_of, why_absent
from infra.postgres.queries_places import find_shard
from infra.postgres.tables import accounts, holds


class HoldDocument(TypedDict):
    """A hold. Amounts in minor units, 0 or more; `held` is what is still set aside of `amount`."""

    hold_id: str
    account: str
    currency: str
    direction: str
    status: str
    amount: int
    held: int
    captured: int
    expires_at: datetime
    entry_ids: list[str]
    payment_id: NotRequired[str]


_NAMES = ("hold_id", "account", "currency", "direction", "status", "amount", "held", "captured", "expires_at")


async def hold(connection: AsyncConnection, tenant_id: str, hold_id: str) -> HoldDocument:
    """One hold by its id. Raises: NotFound, which says why it isn't there, or what is."""
    shard = await find_shard(connection, tenant_id)
    key = UUID(bytes=bytes(hold_key(tenant_id, hold_id)))
    own = and_(accounts.c.shard == holds.c.shard, accounts.c.account_id == holds.c.account_id)
    query = (
        select(holds, accounts.c.name.label("account"))
        .join_from(holds, accounts, own)
        .where(holds.c.shard == shard, holds.c.hold_key == key)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        missing = f"tenant {tenant_id!r} has no hold {hold_id!r}"
        there = await some_of(connection, holds, shard, tenant_id, "hold_id")
        raise await why_absent(connection, shard, key, missing, there, kinds="holds")
    document: Any = {name: getattr(row, name) for name in _NAMES} | {"entry_ids": list(row.entry_ids)}
    if row.payment_id is not None:
        document["payment_id"] = row.payment_id
    return document  # type: ignore[no-any-return]
