"""Load holds, authorizations, lines of credit, categories and cards: one query a table, none where none is named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.pgproto import pgproto

from domain.books import Books
from domain.events import Event
from domain.expiry import HoldExpired
from domain.ids import AccountId, EntryId
from domain.keys import Key
from domain.needs import Needs
from domain.reservations import (
    Authorization,
    AuthorizationStatus,
    Card,
    ExpenseCategory,
    Hold,
    HoldStatus,
    LineOfCredit,
    line_key,
)
from infra.expiry import expiry_event
from infra.postgres.writes import Connection


async def load_cards(
    connection: Connection,
    books: Books,
    needs: Needs,
    *,
    authorizations: Iterable[Iterable[Any]] = (),
    asked: frozenset[Key] = frozenset(),
) -> None:
    """Load what the commands name of all this, and name the accounts that it stands on.

    `authorizations`: the rows of those that were `asked` for already.
    """
    for row in await _by_key(connection, _HOLDS, books, needs.holds):
        hold = _hold(row)
        books.holds.load(Key(row["hold_key"].bytes), hold)
        needs.account_ids.add(hold.account_id)
    more = await _by_key(connection, _AUTHORIZATIONS, books, needs.authorizations - asked)
    for key, authorization in map(_authorization, (*authorizations, *more)):
        books.authorizations.load(key, authorization)
        needs.lines |= {line_key(authorization.tenant_id, line_id) for line_id in authorization.lines}
        if authorization.account_id is not None:
            needs.account_ids.add(authorization.account_id)
    # Lines and categories may be in memory, changed since they were read.
    for row in await _by_key(connection, _LINES, books, needs.lines - books.lines.keys()):
        books.lines[Key(row["line_key"].bytes)] = _line(row)
    for row in await _by_key(connection, _LINES_OF_OWNERS, books, needs.line_owners):
        line = books.lines.setdefault(Key(row["line_key"].bytes), _line(row))
        books.line_owners[Key(row["owner_key"].bytes)] = line
    for row in await _by_key(connection, _CATEGORIES, books, needs.categories - books.categories.keys()):
        books.categories[Key(row["category_key"].bytes)] = _category(row)
    for row in await _by_key(connection, _CARDS, books, needs.cards):
        card = Card(row["tenant_id"], row["card_id"], row["owner_type"], row["owner_ref"])
        books.cards.load(Key(row["card_key"].bytes), card)
    await _count_waiting(connection, books, needs)


_HOLDS = "SELECT * FROM holds WHERE shard = $1 AND hold_key = ANY($2::uuid[])"
_FIELDS = tuple(field.name for field in fields(Authorization))
AUTHORIZATION_COLUMNS = ", ".join(("authorization_key", *_FIELDS))
_AUTHORIZATIONS = f"""
    SELECT {AUTHORIZATION_COLUMNS} FROM authorizations WHERE shard = $1 AND authorization_key = ANY($2::uuid[])
"""
_LINES = "SELECT * FROM lines_of_credit WHERE shard = $1 AND line_key = ANY($2::uuid[])"
_LINES_OF_OWNERS = "SELECT * FROM lines_of_credit WHERE shard = $1 AND owner_key = ANY($2::uuid[]) AND NOT terminated"
_CATEGORIES = "SELECT * FROM expense_categories WHERE shard = $1 AND category_key = ANY($2::uuid[])"
_CARDS = "SELECT * FROM cards WHERE shard = $1 AND card_key = ANY($2::uuid[])"
_WAITING = """
    SELECT waits_for, count(*)
    FROM parked
    WHERE shard = $1 AND waits_for = ANY($2::uuid[])
    GROUP BY waits_for
"""


async def _by_key(connection: Connection, query: str, books: Books, keys: Iterable[Key]) -> Sequence[asyncpg.Record]:
    wanted = [pgproto.UUID(key) for key in keys]
    return await connection.fetch(query, books.shard, wanted) if wanted else ()


async def _count_waiting(connection: Connection, books: Books, needs: Needs) -> None:
    """Count who waits already for what is still not there; who waits for what this batch may make is loaded."""
    missing = {key for key in needs.holds if books.holds.get(key) is None}
    missing |= {key for key in needs.authorizations if books.authorizations.get(key) is None}
    for key in missing & needs.arrivals:
        books.waiting_count[key] = len(books.waiting.get(key, ()))
    for waits_for, count in await _by_key(connection, _WAITING, books, missing - needs.arrivals):
        books.waiting_count[Key(waits_for.bytes)] = count


def _hold(row: asyncpg.Record) -> Hold:
    return Hold(
        row["tenant_id"],
        row["hold_id"],
        AccountId(row["account_id"]),
        row["currency"],
        row["direction"],
        row["amount"],
        row["held"],
        row["expires_at"],
        row["payment_id"],
        row["captured"],
        HoldStatus(row["status"]),
        row["adjusted_at"],
        [EntryId(UUID(entry_id)) for entry_id in row["entry_ids"]],
    )


def _authorization(row: Iterable[Any]) -> tuple[Key, Authorization]:
    key, *rest = row
    values = dict(zip(_FIELDS, rest, strict=True))
    values["status"] = AuthorizationStatus(values["status"])
    for name in ("reasons", "categories", "lines"):
        values[name] = tuple(values[name])
    return Key(key.bytes), Authorization(**values)


def _line(row: asyncpg.Record) -> LineOfCredit:
    values = dict(row.items())
    del values["shard"], values["line_key"], values["owner_key"]
    return LineOfCredit(**values)


def _category(row: asyncpg.Record) -> ExpenseCategory:
    return ExpenseCategory(
        row["tenant_id"], row["code"], row["name"], row["description"], row["reference"], row["match"].encode()
    )


async def load_expired(connection: Connection, shard: int, now: datetime, limit: int) -> list[Event]:
    """The expiries that are due, in the order of their time."""
    rows = await connection.fetch(
        """
        SELECT tenant_id, hold_id, NULL AS provider, NULL AS external_id, expires_at
        FROM (
            SELECT * FROM holds WHERE shard = $1 AND status = 'pending' AND expires_at <= $2
            ORDER BY expires_at LIMIT $3
        ) AS h
        UNION ALL
        SELECT tenant_id, NULL, provider, external_id, expires_at
        FROM (
            SELECT * FROM authorizations WHERE shard = $1 AND status = 'approved' AND expires_at <= $2
            ORDER BY expires_at LIMIT $3
        ) AS a
        """,
        shard,
        now,
        limit,
    )
    due = sorted(rows, key=lambda row: (row["expires_at"], row["tenant_id"], row["hold_id"] or row["external_id"]))
    return [
        expiry_event(
            row["tenant_id"], HoldExpired(row["expires_at"], row["hold_id"], row["provider"], row["external_id"])
        )
        for row in due[:limit]
    ]
