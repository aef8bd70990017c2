"""Save holds, authorizations, lines of credit, expense categories and cards, and how what is held has moved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asyncpg.pgproto import pgproto

from domain.books import Books
from domain.events import Applied, Handled
from domain.keys import Key
from domain.reservations import Authorization, Hold, LineOfCredit, line_owner_key
from infra.postgres.writes import Target, Writes


def _upsert(table: str, key: str, columns: dict[str, str], *moves: str) -> Target:
    """Of a row that is there already only `moves` ever change."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in moves)
    conflict = f"ON CONFLICT (shard, {key}) DO UPDATE SET {changes}"
    return Target(table, {"shard": "smallint", key: "uuid", **columns}, conflict)


_HOLD_CHANGES = Target(
    "hold_changes",
    {
        "shard": "smallint",
        "seq": "bigint",
        "account_id": "uuid",
        "currency": "text",
        "amount": "bigint",
        "held_after": "bigint",
        "version": "bigint",
    },
)
_AUTHORIZATION_EVENTS = Target(
    "authorization_events", {"shard": "smallint", "authorization_key": "uuid", "seq": "bigint"}
)
_HOLDS = _upsert(
    "holds",
    "hold_key",
    {
        "tenant_id": "text",
        "hold_id": "text",
        "account_id": "uuid",
        "currency": "text",
        "direction": "text",
        "payment_id": "text",
        "status": "text",
        "amount": "bigint",
        "held": "bigint",
        "captured": "bigint",
        "expires_at": "timestamptz",
        "adjusted_at": "timestamptz",
        "entry_ids": "text[]",
    },
    "status",
    "amount",
    "held",
    "captured",
    "expires_at",
    "adjusted_at",
    "entry_ids",
)
_AUTHORIZATION = {
    "tenant_id": "text",
    "provider": "text",
    "external_id": "text",
    "status": "text",
    "confirmed": "boolean",
    "currency": "text",
    "account_id": "uuid",
    "decision": "text",
    "decided_by": "text",
    "reason": "text",
    "reasons": "text[]",
    "amount": "bigint",
    "approved_amount": "bigint",
    "authorized": "bigint",
    "captured": "bigint",
    "refunded": "bigint",
    "given_back": "bigint",
    "expensed": "bigint",
    "held": "bigint",
    "categories": "text[]",
    "lines": "text[]",
    "expires_at": "timestamptz",
    "adjusted_at": "timestamptz",
}
_AUTHORIZATIONS = _upsert("authorizations", "authorization_key", _AUTHORIZATION, *list(_AUTHORIZATION)[3:])
_LINES = _upsert(
    "lines_of_credit",
    "line_key",
    {
        "owner_key": "uuid",
        "tenant_id": "text",
        "line_of_credit_id": "text",
        "owner_type": "text",
        "owner_ref": "text",
        "expense_category": "text",
        "currency": "text",
        "credits_limit": "bigint",
        "expensed_credits": "bigint",
        "terminated": "boolean",
    },
    "credits_limit",
    "expensed_credits",
    "terminated",
)
_CATEGORIES = Target(
    "expense_categories",
    {
        "shard": "smallint",
        "category_key": "uuid",
        "tenant_id": "text",
        "code": "text",
        "name": "text",
        "description": "text",
        "reference": "text",
        "match": "text",
    },
)
_CARDS = _upsert(
    "cards",
    "card_key",
    {"tenant_id": "text", "card_id": "text", "owner_type": "text", "owner_ref": "text"},
    "owner_type",
    "owner_ref",
)


async def save_cards(writes: Writes, books: Books, handled: Iterable[Handled]) -> None:
    """Write all of it that was made or changed, once each."""
    shard = books.shard
    writes.insert(_HOLD_CHANGES, _hold_change_rows(shard, handled))
    events = [(shard, pgproto.UUID(key), seq) for key, seq in books.authorization_events]
    writes.insert(_AUTHORIZATION_EVENTS, events)
    writes.insert(_HOLDS, [_hold_row(shard, key, hold) for key, hold in books.holds.touched.items()])
    touched = books.authorizations.touched.items()
    writes.insert(_AUTHORIZATIONS, [_authorization_row(shard, key, authorization) for key, authorization in touched])
    # An owner's line may end and another begin in one batch, and both are of one key: first what ends.
    ended_first = sorted(books.changed_lines.items(), key=lambda item: not item[1].terminated)
    ended = [_line_row(shard, key, line) for key, line in ended_first if line.terminated]
    if ended and len(ended) < len(ended_first):
        writes.insert(_LINES, ended)
        await writes.flush()
        ended = []
    rest = [_line_row(shard, key, line) for key, line in ended_first if not line.terminated]
    writes.insert(_LINES, ended + rest)
    categories = [
        (shard, pgproto.UUID(key), c.tenant_id, c.code, c.name, c.description, c.reference, c.match.decode())
        for key, c in books.new_categories.items()
    ]
    writes.insert(_CATEGORIES, categories)
    cards = [
        (shard, pgproto.UUID(key), card.tenant_id, card.card_id, card.owner_type, card.owner_ref)
        for key, card in books.cards.touched.items()
    ]
    writes.insert(_CARDS, cards)


def _hold_change_rows(shard: int, handled: Iterable[Handled]) -> list[tuple[Any, ...]]:
    return [
        (
            shard,
            each.seq,
            moved.account.account_id,
            moved.currency,
            moved.held_change,
            moved.held,
            moved.version,
        )
        for each in handled
        if isinstance(each.outcome, Applied)
        for moved in each.outcome.changes
        if moved.held_change
    ]


def _hold_row(shard: int, key: Key, hold: Hold) -> tuple[Any, ...]:
    return (
        shard,
        pgproto.UUID(key),
        hold.tenant_id,
        hold.hold_id,
        hold.account_id,
        hold.currency,
        hold.direction,
        hold.payment_id,
        str(hold.status),
        hold.amount,
        hold.held,
        hold.captured,
        hold.expires_at,
        hold.adjusted_at,
        [str(entry_id) for entry_id in hold.entry_ids],
    )


def _authorization_row(shard: int, key: Key, authorization: Authorization) -> tuple[Any, ...]:
    values = [getattr(authorization, name) for name in _AUTHORIZATION]
    return (shard, pgproto.UUID(key), *values)


def _line_row(shard: int, key: Key, line: LineOfCredit) -> tuple[Any, ...]:
    owner = line_owner_key(line.tenant_id, line.owner_type, line.owner_ref, line.expense_category)
    return (
        shard,
        pgproto.UUID(key),
        pgproto.UUID(owner),
        line.tenant_id,
        line.line_of_credit_id,
        line.owner_type,
        line.owner_ref,
        line.expense_category,
        line.currency,
        line.credits_limit,
        line.expensed_credits,
        line.terminated,
    )
