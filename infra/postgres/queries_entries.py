"""Journal entries, as the stream of `entry.recorded` tells them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import JSON, Row, Select, func, select, true, type_coerce
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import place_of
from infra.postgres.queries_balances import just_before
from infra.postgres.queries_places import NotFound, find_account, find_shard, looked_up, seq_at
from infra.postgres.tables import accounts, entries, events, postings

REFERENCES = ("payment_id", "refund_id", "transfer_id", "payout_id", "dispute_id")


class Cause(TypedDict):
    """The event that made an entry."""

    type: str
    id: str
    source: str


class PostingLine(TypedDict):
    """One leg: `amount` and `posted_after` signed, minor units; `posted_after` and `version` as after the event."""

    account_id: str
    account: str
    amount: int
    currency: str
    posted_after: int
    version: int


class EntryDocument(TypedDict):
    """An entry with the keys of `entry.recorded`'s data; what is absent is left out."""

    entry_id: UUID
    seq: int
    kind: str
    description: NotRequired[str]
    references: dict[str, str]
    metadata: NotRequired[dict[str, Any]]
    effective_at: datetime
    recorded_at: datetime
    occurred_at: datetime
    reverses: NotRequired[UUID]
    pending: bool
    breaches: list[str]
    cause: Cause
    postings: list[PostingLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries are asked for; None: whatever it is. `after` and `before` compare recorded_at, both exclusive.

    `cursor` is the last entry_id seen: the answer begins with the next.
    """

    account: str | None = None
    payment_id: str | None = None
    refund_id: str | None = None
    transfer_id: str | None = None
    payout_id: str | None = None
    dispute_id: str | None = None
    kind: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    limit: int | None = None
    cursor: UUID | None = None


EVERY_ENTRY = EntryFilter()


async def list_entries(
    connection: AsyncConnection, tenant_id: str, wanted: EntryFilter = EVERY_ENTRY
) -> AsyncIterator[EntryDocument]:
    """A tenant's entries in the order of the ledger, read as they are asked for.

    Raises: NotFound when there is no such tenant or account, or the cursor is no entry of this tenant's shard.
    """
    shard = await find_shard(connection, tenant_id)
    query = _entries(shard).where(entries.c.tenant_id == tenant_id).order_by(entries.c.seq).limit(wanted.limit)
    query = await _from_to(connection, query, shard, wanted)
    for name in (*REFERENCES, "kind"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(entries.c[name] == value)
    if wanted.account is not None:
        place = await find_account(connection, tenant_id, wanted.account)
        query = query.where(
            select(postings.c.seq)
            .where(
                postings.c.shard == shard,
                postings.c.account_id == place.account_id,
                postings.c.seq == entries.c.seq,
            )
            .exists()
        )
    async for row in await connection.stream(query):
        yield _document(row)


async def entry(connection: AsyncConnection, tenant_id: str, entry_id: UUID) -> EntryDocument:
    """One entry of a tenant by its id, which says where it stands. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    _, _, seq = place_of(entry_id)
    query = _entries(shard).where(
        entries.c.seq == seq, entries.c.entry_id == entry_id, entries.c.tenant_id == tenant_id
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has no entry {entry_id}")
    return _document(row)


async def _from_to(connection: AsyncConnection, query: Select[Any], shard: int, wanted: EntryFilter) -> Select[Any]:
    """Bounds on recorded_at become bounds on seq, which has the same order and the primary key."""
    if wanted.cursor is not None:
        _, cursor_shard, seq = place_of(wanted.cursor)
        if cursor_shard != shard:
            raise NotFound(f"the cursor {wanted.cursor} is not an entry of this tenant; take the last entry_id you saw")
        query = query.where(entries.c.seq > seq)
    if wanted.after is not None:
        query = query.where(entries.c.seq > await seq_at(connection, shard, wanted.after))
    if wanted.before is not None:
        query = query.where(entries.c.seq <= await seq_at(connection, shard, just_before(wanted.before)))
    return query


def _entries(shard: int) -> Select[Any]:
    # A subquery of its own, so that each name is looked up by its key whatever is known of the tables.
    account = (
        select(accounts.c.name)
        .where(accounts.c.shard == postings.c.shard, accounts.c.account_id == postings.c.account_id)
        .correlate(postings)
        .scalar_subquery()
    )
    leg = func.json_build_object(
        "account_id", postings.c.account_id,
        "account", account,
        "amount", postings.c.amount,
        "currency", postings.c.currency,
        "posted_after", postings.c.posted_after,
        "version", postings.c.version,
    )  # fmt: skip
    legs = (
        select(func.json_agg(aggregate_order_by(leg, postings.c.leg)))
        .where(postings.c.shard == entries.c.shard, postings.c.seq == entries.c.seq)
        .correlate(entries)
        .scalar_subquery()
    )
    event = looked_up(events, "event", "type", "event_id", "source", shard=entries.c.shard, seq=entries.c.event_seq)
    return (
        select(
            *(column for column in entries.c if column.name not in ("shard", "event_seq", "tenant_id")),
            event.c.type.label("cause_type"),
            event.c.event_id.label("cause_id"),
            event.c.source.label("cause_source"),
            type_coerce(legs, JSON).label("postings"),
        )
        .join_from(entries, event, true())
        .where(entries.c.shard == shard)
    )


def _document(row: Row[Any]) -> EntryDocument:
    document: EntryDocument = {
        "entry_id": row.entry_id,
        "seq": row.seq,
        "kind": row.kind,
        "references": {name: value for name in REFERENCES if (value := getattr(row, name)) is not None},
        "effective_at": row.effective_at,
        "recorded_at": row.recorded_at,
        "occurred_at": row.occurred_at,
        "pending": row.pending,
        "breaches": list(row.breaches),
        "cause": {"type": row.cause_type, "id": row.cause_id, "source": row.cause_source},
        "postings": row.postings or [],
    }
    if row.description is not None:
        document["description"] = row.description
    if row.metadata is not None:
        document["metadata"] = json.loads(row.metadata)
    if row.reverses is not None:
        document["reverses"] = row.reverses
    return document
