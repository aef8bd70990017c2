"""Load accounts with their balances, by name, by id, or with all that stand above them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg
import orjson

from domain.accounts import Account, AccountStatus, AccountType, Balance
from domain.books import Books
from domain.needs import Needs
from infra.postgres.writes import Connection

_ACCOUNT_COLUMNS = """
    a.account_id, a.tenant_id, a.name, a.type, a.currency, a.parent_id, a.floors, a.ceilings, a.status,
    a.description, a.metadata,
    b.currency AS balance_currency, b.posted, b.pending, b.held, b.version, b.updated_at
"""

# LATERAL with OFFSET 0 fixes the order of the loops: on a table never analyzed the planner may otherwise go through all
# accounts of a shard and compare each with every name.
_THEIR_BALANCES = """
    LEFT JOIN LATERAL (
        SELECT * FROM balances WHERE shard = $1 AND account_id = a.account_id OFFSET 0
    ) AS b ON true
"""

_ACCOUNTS_BY_NAME = f"""
    SELECT {_ACCOUNT_COLUMNS}
    FROM unnest($2::text[], $3::text[]) AS named (tenant_id, name)
    CROSS JOIN LATERAL (
        SELECT * FROM accounts WHERE shard = $1 AND tenant_id = named.tenant_id AND name = named.name OFFSET 0
    ) AS a
    {_THEIR_BALANCES}
"""

_ACCOUNTS_BY_ID = f"""
    SELECT {_ACCOUNT_COLUMNS}
    FROM unnest($2::uuid[]) AS named (account_id)
    CROSS JOIN LATERAL (
        SELECT * FROM accounts WHERE shard = $1 AND account_id = named.account_id OFFSET 0
    ) AS a
    {_THEIR_BALANCES}
"""

_ANCESTORS = f"""
    WITH RECURSIVE above AS (
        SELECT a.account_id, a.parent_id
        FROM unnest($2::text[], $3::text[]) AS named (tenant_id, name)
        CROSS JOIN LATERAL (
            SELECT * FROM accounts WHERE shard = $1 AND tenant_id = named.tenant_id AND name = named.name OFFSET 0
        ) AS a
        UNION
        SELECT p.account_id, p.parent_id
        FROM above
        CROSS JOIN LATERAL (
            SELECT * FROM accounts WHERE shard = $1 AND account_id = above.parent_id OFFSET 0
        ) AS p
    )
    SELECT {_ACCOUNT_COLUMNS}
    FROM above
    CROSS JOIN LATERAL (
        SELECT * FROM accounts WHERE shard = $1 AND account_id = above.account_id OFFSET 0
    ) AS a
    {_THEIR_BALANCES}
"""


async def load_accounts(connection: Connection, books: Books, needs: Needs) -> None:
    """Load the accounts that aren't in memory yet. One that is must not be read over: it may have changed since."""
    names = [name for name in needs.accounts if name not in books.accounts]
    if names:
        _keep_accounts(books, await connection.fetch(_ACCOUNTS_BY_NAME, books.shard, *_columns(names)))
    if needs.ancestors_of:
        rows = await connection.fetch(_ANCESTORS, books.shard, *_columns(list(needs.ancestors_of)))
        _keep_accounts(books, rows)
    ids = [account_id for account_id in needs.account_ids if account_id not in books.accounts_by_id]
    if ids:
        _keep_accounts(books, await connection.fetch(_ACCOUNTS_BY_ID, books.shard, ids))


def _columns(names: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [tenant_id for tenant_id, _ in names], [name for _, name in names]


def _keep_accounts(books: Books, rows: Iterable[asyncpg.Record]) -> None:
    fresh: dict[UUID, Account] = {}
    for row in rows:
        account_id = row["account_id"]
        if account_id in books.accounts_by_id and account_id not in fresh:
            continue
        account = fresh.get(account_id)
        if account is None:
            account = fresh[account_id] = _account(row)
            books.keep_account(account)
        if row["balance_currency"] is not None:
            account.balances[row["balance_currency"]] = Balance(
                row["posted"], row["pending"], row["held"], row["version"], row["updated_at"]
            )


def _account(row: asyncpg.Record) -> Account:
    metadata = row["metadata"]
    return Account(
        account_id=row["account_id"],
        tenant_id=row["tenant_id"],
        name=row["name"],
        type=AccountType(row["type"]),
        currency=row["currency"],
        parent_id=row["parent_id"],
        floors=orjson.loads(row["floors"]),
        ceilings=orjson.loads(row["ceilings"]),
        status=AccountStatus(row["status"]),
        description=row["description"],
        metadata=None if metadata is None else metadata.encode(),
    )
