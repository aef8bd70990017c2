"""What a replay changed: balances before and after, and the entries that are new."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict, cast
from uuid import UUID

import asyncpg


class AccountChange(TypedDict):
    """An account in a currency, before and after; in minor units, debit positive, credit negative."""

    tenant: str
    account: str
    currency: str
    posted_before: int
    posted: int
    held_before: int
    held: int


class NewEntry(TypedDict):
    entry_id: UUID
    tenant: str
    kind: str
    effective_at: datetime
    references: dict[str, str]


class Changes(TypedDict):
    accounts: list[AccountChange]
    entries: list[NewEntry]


_REMEMBER = (
    "CREATE TABLE replay_balances AS SELECT shard, account_id, currency, posted, held FROM balances",
    "CREATE TABLE replay_shards AS SELECT shard, next_seq FROM shards",
)
_ACCOUNTS = """
SELECT
    accounts.tenant_id AS tenant,
    accounts.name AS account,
    balances.currency,
    coalesce(before.posted, 0) AS posted_before,
    balances.posted,
    coalesce(before.held, 0) AS held_before,
    balances.held
FROM balances
JOIN accounts ON accounts.shard = balances.shard AND accounts.account_id = balances.account_id
LEFT JOIN replay_balances AS before
    ON before.shard = balances.shard AND before.account_id = balances.account_id
    AND before.currency = balances.currency
WHERE (balances.posted, balances.held) IS DISTINCT FROM (before.posted, before.held)
ORDER BY tenant, account, balances.currency
"""
_ENTRIES = """
SELECT entry_id, tenant_id, kind, effective_at, payment_id, refund_id, transfer_id, payout_id, dispute_id
FROM entries JOIN replay_shards AS before USING (shard)
WHERE entries.seq >= before.next_seq
ORDER BY shard, seq
"""
_REFERENCES: Sequence[str] = ("payment_id", "refund_id", "transfer_id", "payout_id", "dispute_id")


async def remember(connection: asyncpg.Connection) -> None:
    """Keep how the books stand, in tables of the scratch database."""
    for statement in _REMEMBER:
        await connection.execute(statement)


async def changes_since(connection: asyncpg.Connection) -> Changes:
    """What is otherwise than when it was remembered."""
    return Changes(
        accounts=[cast(AccountChange, dict(row)) for row in await connection.fetch(_ACCOUNTS)],
        entries=[_entry(row) for row in await connection.fetch(_ENTRIES)],
    )


async def anything_since(connection: asyncpg.Connection) -> bool:
    """Whether a shard went on at all: rejections and parked events count, though they move no balance."""
    return bool(
        await connection.fetchval(
            "SELECT bool_or(shards.next_seq <> before.next_seq) FROM shards JOIN replay_shards AS before USING (shard)"
        )
    )


def _entry(row: asyncpg.Record) -> NewEntry:
    return NewEntry(
        entry_id=row["entry_id"],
        tenant=row["tenant_id"],
        kind=row["kind"],
        effective_at=row["effective_at"],
        references={name: row[name] for name in _REFERENCES if row[name] is not None},
    )
