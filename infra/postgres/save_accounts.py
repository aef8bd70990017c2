"""Save accounts, their balances, and what each day brought them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date
from typing import Any

import orjson

from domain.accounts import Account, Balance
from domain.books import Books
from domain.events import Applied, Entry, Handled
from domain.money import AMOUNT_MAX
from infra.postgres.writes import Target, Writes

_ACCOUNTS = Target(
    "accounts",
    {
        "shard": "smallint",
        "account_id": "uuid",
        "tenant_id": "text",
        "name": "text",
        "type": "text",
        "currency": "text",
        "parent_id": "uuid",
        "floors": "jsonb",
        "ceilings": "jsonb",
        "status": "text",
        "description": "text",
        "metadata": "text",
    },
)
_ACCOUNTS_CHANGED = replace(
    _ACCOUNTS,
    conflict="""
        ON CONFLICT (shard, account_id) DO UPDATE
        SET parent_id = excluded.parent_id, floors = excluded.floors, ceilings = excluded.ceilings,
            status = excluded.status, description = excluded.description, metadata = excluded.metadata
    """,
)
# ON CONFLICT always goes by the index; the planner of an UPDATE may go through the whole shard.
_BALANCES = Target(
    "balances",
    {
        "shard": "smallint",
        "account_id": "uuid",
        "currency": "text",
        "posted": "bigint",
        "pending": "bigint",
        "held": "bigint",
        "version": "bigint",
        "updated_at": "timestamptz",
    },
    """
        ON CONFLICT (shard, account_id, currency) DO UPDATE
        SET posted = excluded.posted, pending = excluded.pending, held = excluded.held,
            version = excluded.version, updated_at = excluded.updated_at
    """,
)
_DAYS = Target(
    "balance_days",
    {
        "shard": "smallint",
        "account_id": "uuid",
        "currency": "text",
        "day": "date",
        "change": "bigint",
        "seq_first": "bigint",
        "seq_last": "bigint",
    },
    """
        ON CONFLICT (shard, account_id, currency, day) DO UPDATE
        SET change = balance_days.change + excluded.change, seq_last = excluded.seq_last
    """,
)
_LARGE_DAYS = replace(_DAYS, columns=_DAYS.columns | {"change": "numeric"})


async def save_accounts(writes: Writes, books: Books, handled: Iterable[Handled]) -> None:
    """Write accounts that were opened or changed, and every balance that moved, once each."""
    writes.insert(_ACCOUNTS, [_account_row(books.shard, account) for account in books.opened])
    if books.changed_accounts:
        # One may have been opened by this batch, too.
        await writes.flush()
        writes.insert(
            _ACCOUNTS_CHANGED, [_account_row(books.shard, account) for account in books.changed_accounts.values()]
        )
    balances: dict[int, tuple[Account, str, Balance]] = {}
    days: dict[tuple[int, str, date], list[Any]] = {}
    for each in handled:
        outcome = each.outcome
        if not isinstance(outcome, Applied):
            continue
        for change in outcome.changes:
            balances[id(change.balance)] = (change.account, change.currency, change.balance)
        if outcome.entry is not None:
            _add_days(days, books.shard, outcome.entry)
    writes.insert(_BALANCES, _balance_rows(books.shard, balances.values()))
    # Each balance fits into 64 bits, but what one day adds to it may leave them.
    fits = all(-AMOUNT_MAX <= change <= AMOUNT_MAX for _, _, _, _, change, _, _ in days.values())
    writes.insert(_DAYS if fits else _LARGE_DAYS, list(days.values()))


def _account_row(shard: int, account: Account) -> tuple[Any, ...]:
    return (
        shard,
        account.account_id,
        account.tenant_id,
        account.name,
        str(account.type),
        account.currency,
        account.parent_id,
        orjson.dumps(account.floors).decode(),
        orjson.dumps(account.ceilings).decode(),
        str(account.status),
        account.description,
        None if account.metadata is None else account.metadata.decode(),
    )


def _balance_rows(shard: int, moved: Iterable[tuple[Account, str, Balance]]) -> list[tuple[Any, ...]]:
    return [
        (
            shard,
            account.account_id,
            currency,
            balance.posted,
            balance.pending,
            balance.held,
            balance.version,
            balance.updated_at,
        )
        for account, currency, balance in moved
    ]


def _add_days(days: dict[tuple[int, str, date], list[Any]], shard: int, entry: Entry) -> None:
    effective_at = entry.effective_at
    day = (effective_at if effective_at.tzinfo is UTC else effective_at.astimezone(UTC)).date()
    for account, currency, amount, _, _ in entry.postings:
        # An account is one object in memory; its id() is cheaper to hash than its UUID.
        place = (id(account), currency, day)
        found = days.get(place)
        if found is None:
            days[place] = [shard, account.account_id, currency, day, amount, entry.seq, entry.seq]
        else:
            found[4] += amount
            found[6] = entry.seq
