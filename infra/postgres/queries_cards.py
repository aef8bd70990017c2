"""Holds, card payments, and what they are judged by: lines of credit, categories, cards."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import Row, Select, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.keys import Key
from domain.reservations import authorization_key, hold_key, line_key
from infra.postgres.queries_places import NotFound, find_shard
from infra.postgres.tables import (
    accounts,
    authorization_events,
    authorizations,
    cards,
    events,
    expense_categories,
    holds,
    lines_of_credit,
)


class HoldDocument(TypedDict):
    """A hold. Amounts in minor units, 0 or more."""

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


class AuthorizationEvent(TypedDict):
    """Something that was applied to an authorization; a request or an advice has no id of its own among them."""

    event_id: str | None
    type: str
    time: datetime


class AuthorizationDocument(TypedDict):
    """A card payment. Amounts in minor units of its currency; what was not decided yet is null."""

    status: str
    confirmed: bool
    decision: str | None
    decided_by: str | None
    reason: str | None
    reasons: list[str]
    currency: str | None
    amount: int
    approved_amount: int
    authorized: int
    captured: int
    refunded: int
    expense_categories: list[str]
    lines_of_credit: list[str]
    account: str | None
    events: list[AuthorizationEvent]


class LineDocument(TypedDict):
    """A line of credit. `available_credits` may be negative: facts go past the limit."""

    line_of_credit_id: str
    owner_type: str
    owner_ref: str
    expense_category: str
    currency: str
    credits_limit: int
    expensed_credits: int
    available_credits: int
    terminated: bool


class CategoryDocument(TypedDict):
    """A category of expenses, its rules as they were given."""

    code: str
    name: str
    description: str | None
    reference: str | None
    match: list[dict[str, Any]]


class CardDocument(TypedDict):
    """Whose a card is."""

    card_id: str
    owner_type: str
    owner_ref: str


async def hold(connection: AsyncConnection, tenant_id: str, hold_id: str) -> HoldDocument:
    """One hold by its id. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    query = _with_account(holds).where(holds.c.shard == shard, holds.c.hold_key == _uuid(hold_key(tenant_id, hold_id)))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has no hold {hold_id!r}")
    names = ("hold_id", "account", "currency", "direction", "status", "amount", "held", "captured", "expires_at")
    document: Any = {name: getattr(row, name) for name in names} | {"entry_ids": list(row.entry_ids)}
    if row.payment_id is not None:
        document["payment_id"] = row.payment_id
    return document  # type: ignore[no-any-return]


async def authorization(
    connection: AsyncConnection, tenant_id: str, provider: str, external_id: str
) -> AuthorizationDocument:
    """One card payment by its provider and the provider's id. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    key = _uuid(authorization_key(tenant_id, provider, external_id))
    query = _with_account(authorizations).where(
        authorizations.c.shard == shard, authorizations.c.authorization_key == key
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has no authorization {external_id!r} of {provider!r}")
    names = (
        "status", "confirmed", "decision", "decided_by", "reason", "reasons", "currency", "amount", "approved_amount",
        "authorized", "captured", "refunded",
    )  # fmt: skip
    document: Any = {name: getattr(row, name) for name in names}
    document |= {"expense_categories": list(row.categories), "lines_of_credit": list(row.lines)}
    return document | {"account": row.account, "events": await _events(connection, shard, key)}  # type: ignore[no-any-return]


async def line(connection: AsyncConnection, tenant_id: str, line_of_credit_id: str) -> LineDocument:
    """One line of credit by its id. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    query = select(lines_of_credit).where(
        lines_of_credit.c.shard == shard,
        lines_of_credit.c.line_key == _uuid(line_key(tenant_id, line_of_credit_id)),
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has no line of credit {line_of_credit_id!r}")
    return _line(row)


async def list_lines(
    connection: AsyncConnection, tenant_id: str, *, owner_type: str, owner_ref: str
) -> list[LineDocument]:
    """The lines of credit of an owner, terminated ones too, by category. Raises: NotFound when there's no tenant."""
    shard = await find_shard(connection, tenant_id)
    query = (
        select(lines_of_credit)
        .where(
            lines_of_credit.c.shard == shard,
            lines_of_credit.c.tenant_id == tenant_id,
            lines_of_credit.c.owner_type == owner_type,
            lines_of_credit.c.owner_ref == owner_ref.lower(),
        )
        .order_by(lines_of_credit.c.expense_category, lines_of_credit.c.line_of_credit_id)
    )
    return [_line(row) for row in await connection.execute(query)]


async def list_categories(connection: AsyncConnection, tenant_id: str) -> list[CategoryDocument]:
    """A tenant's categories by code. Raises: NotFound when there is no such tenant."""
    shard = await find_shard(connection, tenant_id)
    query = (
        select(expense_categories)
        .where(expense_categories.c.shard == shard, expense_categories.c.tenant_id == tenant_id)
        .order_by(expense_categories.c.code)
    )
    return [
        {
            "code": row.code,
            "name": row.name,
            "description": row.description,
            "reference": row.reference,
            "match": json.loads(row.match),
        }
        for row in await connection.execute(query)
    ]


async def list_cards(connection: AsyncConnection, tenant_id: str) -> list[CardDocument]:
    """A tenant's cards that are somebody's, by id. Raises: NotFound when there is no such tenant."""
    shard = await find_shard(connection, tenant_id)
    query = (
        select(cards)
        .where(cards.c.shard == shard, cards.c.tenant_id == tenant_id, cards.c.owner_type.is_not(None))
        .order_by(cards.c.card_id)
    )
    return [
        {"card_id": row.card_id, "owner_type": row.owner_type, "owner_ref": row.owner_ref}
        for row in await connection.execute(query)
    ]


def _uuid(key: Key) -> UUID:
    return UUID(bytes=bytes(key))


def _with_account(table: Any) -> Select[Any]:
    """Rows of a table with the name of their account, null where they have none."""
    own = and_(accounts.c.shard == table.c.shard, accounts.c.account_id == table.c.account_id)
    return select(table, accounts.c.name.label("account")).join_from(table, accounts, own, isouter=True)


async def _events(connection: AsyncConnection, shard: int, key: UUID) -> list[AuthorizationEvent]:
    """What was applied to an authorization, in the order of the ledger."""
    theirs = and_(events.c.shard == authorization_events.c.shard, events.c.seq == authorization_events.c.seq)
    query = (
        select(events.c.type, events.c.occurred_at, events.c.data)
        .join_from(authorization_events, events, theirs)
        .where(authorization_events.c.shard == shard, authorization_events.c.authorization_key == key)
        .order_by(authorization_events.c.seq)
    )
    return [
        {"event_id": json.loads(row.data).get("event_id"), "type": row.type, "time": row.occurred_at}
        for row in await connection.execute(query)
    ]


def _line(row: Row[Any]) -> LineDocument:
    return {
        "line_of_credit_id": row.line_of_credit_id,
        "owner_type": row.owner_type,
        "owner_ref": row.owner_ref,
        "expense_category": row.expense_category,
        "currency": row.currency,
        "credits_limit": row.credits_limit,
        "expensed_credits": row.expensed_credits,
        "available_credits": row.credits_limit - row.expensed_credits,
        "terminated": row.terminated,
    }
