"""Where what a person names stands in the books: a tenant's shard, an account, a moment in the order of a shard."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Table, and_, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import LateralFromClause

from infra.postgres.tables import accounts, tenants

SEQ_MAX = 2**63 - 1
_NOTHING: ColumnElement[int] = literal_column("0")


class NotFound(LookupError):  # noqa: N818 - the answer to a question, not a fault
    """Nothing by that name; the message is for the person who asked."""


class AccountPlace(NamedTuple):
    """An account as a read needs it."""

    shard: int
    tenant_id: str
    account_id: UUID
    name: str
    type: str
    currency: str | None


async def find_shard(connection: AsyncConnection, tenant_id: str) -> int:
    """The shard that a tenant lives on. Raises: NotFound."""
    found = await connection.scalar(select(tenants.c.shard).where(tenants.c.tenant_id == tenant_id))
    if found is None:
        raise NotFound(f"no tenant {tenant_id!r}; names are compared to the letter")
    return int(found)


async def find_account(connection: AsyncConnection, tenant_id: str, name: str) -> AccountPlace:
    """One account by its name. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    columns = (accounts.c[column] for column in AccountPlace._fields)
    found = await connection.execute(
        select(*columns).where(accounts.c.shard == shard, accounts.c.tenant_id == tenant_id, accounts.c.name == name)
    )
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has no account {name!r}")
    return AccountPlace(*row)


def alone(account: AccountPlace) -> CTE:
    """One account as a relation of (shard, account_id)."""
    return (
        select(accounts.c.shard, accounts.c.account_id)
        .where(accounts.c.shard == account.shard, accounts.c.account_id == account.account_id)
        .cte("named")
    )


def with_children(account: AccountPlace) -> CTE:
    """An account, its children, theirs, … as a relation of (shard, account_id), each once."""
    tree = (
        select(accounts.c.shard, accounts.c.account_id)
        .where(accounts.c.shard == account.shard, accounts.c.account_id == account.account_id)
        .cte("named", recursive=True)
    )
    children = select(accounts.c.shard, accounts.c.account_id).join(
        tree, and_(accounts.c.shard == tree.c.shard, accounts.c.parent_id == tree.c.account_id)
    )
    # UNION, not UNION ALL: a cycle, which must not be, would otherwise never end.
    return tree.union(children)


def looked_up(table: Table, name: str, *columns: str, **key: ColumnElement[Any]) -> LateralFromClause:
    """The row of a table with this key, as something to join `ON true`: always looked up by it, row by row.

    A plain join leaves the order to the planner, which on tables analyzed while they were nearly empty would rather go
    through the shard once for each row. It can't take a subquery with an OFFSET apart.
    """
    found = select(*(table.c[column] for column in columns)).where(*(table.c[part] == key[part] for part in key))
    return found.offset(_NOTHING).lateral(name)


# recorded_at never goes back within a shard, so the last seq of a moment is found by halving: some thirty probes of the
# primary key, whatever the size of the journal.
_SEQ_AT = text(
    """
    WITH RECURSIVE halving (low, high) AS (
        SELECT 0::bigint, next_seq - 1
        FROM shards
        WHERE shard = :shard
      UNION ALL
        SELECT CASE WHEN known THEN middle ELSE low END,
               CASE WHEN known THEN high ELSE middle - 1 END
        FROM halving
        CROSS JOIN LATERAL (SELECT low + (high - low + 1) / 2 AS middle) AS half
        CROSS JOIN LATERAL (
            SELECT COALESCE((
                SELECT recorded_at <= :moment
                FROM entries
                WHERE shard = :shard
                  AND seq >= middle
                ORDER BY seq
                LIMIT 1
            ), false) AS known
        ) AS probe
        WHERE low < high
    )
    SELECT low
    FROM halving
    WHERE low = high
    """
)


async def seq_at(connection: AsyncConnection, shard: int, moment: datetime) -> int:
    """The seq up to which the shard's entries were recorded at or before a moment."""
    return int((await connection.execute(_SEQ_AT, {"shard": shard, "moment": moment})).scalar_one())
