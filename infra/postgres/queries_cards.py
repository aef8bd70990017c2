"""Card payments, and what they are judged by: lines of credit, categories, cards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, Table, and_, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.keys import Key
from domain.reservations import authorization_key, line_key
from infra.postgres.queries_absent import NAMED_MAX, named, some_of, why_absent
from infra.postgres.queries_places import NotFound, find_shard, looked_up
from infra.postgres.tables import (
    accounts,
    authorization_events,
    authorizations,
    cards,
    entries,
    events,
    expense_categories,
    hold_changes,
    lines_of_credit,
)


class AuthorizationEvent(TypedDict):
    """Something that was applied to an authorization, in the order of the ledger. Amounts in minor units.

    `event_id` is that of the processor, which a request, an advice and an expiry don't have; `amount` is what the event
    said, `held_change` by how much it moved what the account has set aside, `entry_id` the entry that it made.
    """

    event_id: str | None
    type: str
    time: datetime
    seq: int
    amount: NotRequired[int]
    held_change: NotRequired[int]
    entry_id: NotRequired[UUID]


class AuthorizationDocument(TypedDict):
    """A card payment. Amounts in minor units of its currency, 0 or more; what was not decided yet is null.

    `authorized` is the approved amount as later events changed it; `held` is what its account has set aside for it now,
    `expensed` what each of its lines of credit has of it now.
    """

    provider: str
    external_id: str
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
    held: int
    expensed: int
    expense_categories: list[str]
    lines_of_credit: list[str]
    account: str | None
    expires_at: datetime | None
    events: list[AuthorizationEvent]


class LineDocument(TypedDict):
    """A line of credit. Minor units of its currency; `available_credits` may be negative: facts go past the limit."""

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


_OWN = (
    "provider", "external_id", "status", "confirmed", "decision", "decided_by", "reason", "reasons", "currency",
    "amount", "approved_amount", "authorized", "captured", "refunded", "held", "expensed",
)  # fmt: skip


async def authorization(
    connection: AsyncConnection, tenant_id: str, provider: str, external_id: str
) -> AuthorizationDocument:
    """One card payment by its provider and the provider's id. Raises: NotFound, which says why, or what there is."""
    shard = await find_shard(connection, tenant_id)
    key = _uuid(authorization_key(tenant_id, provider, external_id))
    own = and_(accounts.c.shard == authorizations.c.shard, accounts.c.account_id == authorizations.c.account_id)
    query = (
        select(authorizations, accounts.c.name.label("account"))
        .join_from(authorizations, accounts, own, isouter=True)
        .where(authorizations.c.shard == shard, authorizations.c.authorization_key == key)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        missing = f"tenant {tenant_id!r} has no authorization {external_id!r} of {provider!r}"
        there = await some_of(connection, authorizations, shard, tenant_id, "provider", "external_id")
        raise await why_absent(connection, shard, key, missing, there, kinds="authorizations")
    document: Any = {name: getattr(row, name) for name in _OWN}
    document |= {"expense_categories": list(row.categories), "lines_of_credit": list(row.lines)}
    document |= {"account": row.account, "expires_at": row.expires_at}
    return document | {"events": await _events(connection, shard, key)}  # type: ignore[no-any-return]


async def line(connection: AsyncConnection, tenant_id: str, line_of_credit_id: str) -> LineDocument:
    """One line of credit by its id. Raises: NotFound, which says what there is."""
    shard = await find_shard(connection, tenant_id)
    query = select(lines_of_credit).where(
        lines_of_credit.c.shard == shard,
        lines_of_credit.c.line_key == _uuid(line_key(tenant_id, line_of_credit_id)),
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        theirs = select(lines_of_credit.c.line_of_credit_id).where(*_of(lines_of_credit, shard, tenant_id))
        there = sorted(repr(each) for each in await connection.scalars(theirs.limit(NAMED_MAX + 1)))
        missing = f"tenant {tenant_id!r} has no line of credit {line_of_credit_id!r}"
        raise NotFound(missing + named(there, "lines of credit"))
    return _line(row)


async def list_lines(
    connection: AsyncConnection, tenant_id: str, *, owner_type: str, owner_ref: str
) -> AsyncIterator[LineDocument]:
    """The lines of credit of an owner, terminated ones too, by category. Raises: NotFound when there's no tenant."""
    shard = await find_shard(connection, tenant_id)
    query = (
        select(lines_of_credit)
        .where(
            *_of(lines_of_credit, shard, tenant_id),
            lines_of_credit.c.owner_type == owner_type,
            lines_of_credit.c.owner_ref == owner_ref.lower(),
        )
        .order_by(lines_of_credit.c.expense_category, lines_of_credit.c.line_of_credit_id)
    )
    async for row in await connection.stream(query):
        yield _line(row)


async def list_categories(connection: AsyncConnection, tenant_id: str) -> AsyncIterator[CategoryDocument]:
    """A tenant's categories by code. Raises: NotFound when there is no such tenant."""
    shard = await find_shard(connection, tenant_id)
    query = select(expense_categories).where(*_of(expense_categories, shard, tenant_id))
    async for row in await connection.stream(query.order_by(expense_categories.c.code)):
        yield {
            "code": row.code,
            "name": row.name,
            "description": row.description,
            "reference": row.reference,
            "match": json.loads(row.match),
        }


async def list_cards(connection: AsyncConnection, tenant_id: str) -> AsyncIterator[CardDocument]:
    """A tenant's cards that are somebody's, by id. Raises: NotFound when there is no such tenant."""
    shard = await find_shard(connection, tenant_id)
    query = select(cards).where(*_of(cards, shard, tenant_id), cards.c.owner_type.is_not(None))
    async for row in await connection.stream(query.order_by(cards.c.card_id)):
        yield {"card_id": row.card_id, "owner_type": row.owner_type, "owner_ref": row.owner_ref}


def _uuid(key: Key) -> UUID:
    return UUID(bytes=bytes(key))


def _of(table: Table, shard: int, tenant_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.shard == shard, table.c.tenant_id == tenant_id


def _applied(shard: int, key: UUID) -> Select[Any]:
    """The events of an authorization, each with the entry at its seq and by how much it moved what is held."""
    place = authorization_events.c
    event = looked_up(events, "event", "type", "occurred_at", "data", shard=place.shard, seq=place.seq)
    entry_id = select(entries.c.entry_id).where(entries.c.shard == place.shard, entries.c.seq == place.seq)
    held = select(func.sum(hold_changes.c.amount)).where(
        hold_changes.c.shard == place.shard, hold_changes.c.seq == place.seq
    )
    return (
        select(
            place.seq,
            event.c.type,
            event.c.occurred_at,
            event.c.data,
            entry_id.correlate(authorization_events).scalar_subquery().label("entry_id"),
            held.correlate(authorization_events).scalar_subquery().label("held_change"),
        )
        .select_from(authorization_events.join(event, true()))
        .where(place.shard == shard, place.authorization_key == key)
        .order_by(place.seq)
    )


async def _events(connection: AsyncConnection, shard: int, key: UUID) -> list[AuthorizationEvent]:
    told: list[AuthorizationEvent] = []
    for row in await connection.execute(_applied(shard, key)):
        data = json.loads(row.data)
        event: AuthorizationEvent = {
            "event_id": data.get("event_id"),
            "type": row.type,
            "time": row.occurred_at,
            "seq": row.seq,
        }
        if "amount" in data:
            event["amount"] = data["amount"]
        if row.held_change is not None:
            event["held_change"] = int(row.held_change)
        if row.entry_id is not None:
            event["entry_id"] = row.entry_id
        told.append(event)
    return told


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
