"""Where an entry came from and what was said of it: from a place in Kafka through the event to postings and outputs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NotRequired, TypedDict, final
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.outbox import DEAD_LETTER, TOPICS, TYPES, unpack
from infra.postgres.queries_balances import BalanceLine, balance
from infra.postgres.queries_entries import EntryDocument, entry
from infra.postgres.queries_places import find_account, find_shard
from infra.postgres.tables import entries, events, outbox, postings, relayed


class Origin(TypedDict):
    """The event behind an entry, and where it was read; without a topic it was the ledger's own doing."""

    type: str
    id: str
    source: str
    idempotency_key: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    occurred_at: datetime
    recorded_at: datetime
    seq: int
    data: Any
    parked: NotRequired[Waiting]


class Waiting(TypedDict):
    """When an event was parked before it was applied, and what it waited for."""

    seq: int
    since: datetime
    code: str
    waits_for: str | None


class ToldOutput(TypedDict):
    """One output of an event. `topic` (short name), `type` and `key` are None when the outbox no longer has it.

    `said` is the data of what was said about an authorization: how it stood after the event.
    """

    id: str | None
    seq: int
    topic: str | None
    partition: int | None
    type: str | None
    key: str | None
    published: bool
    said: NotRequired[Any]


@final
class ExplainedEntry(TypedDict):
    """All of one entry. The other entries and changes of its event are among the outputs."""

    event: Origin
    entry: EntryDocument
    outputs: list[ToldOutput]


@final
class ExplainedAccount(TypedDict):
    """An account's balances, and the entries that made them, the latest first; `more`: there are older ones."""

    account: str
    balances: list[BalanceLine]
    entries: list[ExplainedEntry]
    more: bool


async def explain_entry(connection: AsyncConnection, tenant_id: str, entry_id: UUID) -> ExplainedEntry:
    """One entry from the record in Kafka that caused it to what was published of it. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    document = await entry(connection, tenant_id, entry_id)
    event_seq = await connection.scalar(
        select(entries.c.event_seq).where(entries.c.shard == shard, entries.c.seq == document["seq"])
    )
    row = await find_event(connection, shard, int(event_seq or 0))
    return {
        "event": await origin_of(connection, row),
        "entry": document,
        "outputs": await outputs_of(connection, shard, row.seq, row.seq + row.outputs - 1),
    }


async def explain_account(
    connection: AsyncConnection, tenant_id: str, name: str, *, limit: int = 10
) -> ExplainedAccount:
    """An account's balances and the last entries that moved it, each as `explain_entry` tells it. Raises: NotFound."""
    place = await find_account(connection, tenant_id, name)
    # Backwards along the index by account and seq; an entry may have several legs here, so a page may give few.
    found: list[int] = []
    before = 2**63 - 1
    while len(found) <= limit:
        page = await connection.scalars(
            select(postings.c.seq)
            .where(postings.c.shard == place.shard, postings.c.account_id == place.account_id, postings.c.seq < before)
            .order_by(postings.c.seq.desc())
            .limit(limit + 1)
        )
        seqs = list(dict.fromkeys(page))
        if not seqs:
            break
        found += seqs
        before = seqs[-1]
    ids = [
        await connection.scalar(select(entries.c.entry_id).where(entries.c.shard == place.shard, entries.c.seq == seq))
        for seq in found[:limit]
    ]
    return {
        "account": name,
        "balances": await balance(connection, tenant_id, name),
        "entries": [await explain_entry(connection, tenant_id, each) for each in ids if each is not None],
        "more": len(found) > limit,
    }


async def find_event(connection: AsyncConnection, shard: int, seq: int) -> Row[Any]:
    """The row of the journal's events at this seq."""
    found = await connection.execute(select(events).where(events.c.shard == shard, events.c.seq == seq))
    return found.one()


async def origin_of(connection: AsyncConnection, row: Row[Any]) -> Origin:
    """Which event a row is of, where it was read, and whether it had to wait."""
    origin: Origin = {
        "type": row.type,
        "id": row.event_id,
        "source": row.source,
        "idempotency_key": row.idempotency_key,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "occurred_at": row.occurred_at,
        "recorded_at": row.recorded_at,
        "seq": row.seq,
        "data": json.loads(row.data),
    }
    if row.resumes is not None:
        waited = await find_event(connection, row.shard, row.resumes)
        origin["parked"] = {
            "seq": waited.seq,
            "since": waited.recorded_at,
            "code": waited.code,
            "waits_for": waited.waits_for,
        }
    return origin


async def outputs_of(connection: AsyncConnection, shard: int, first: int, last: int) -> list[ToldOutput]:
    """The outputs of an event, from its row of the outbox; an event's outputs are never in two."""
    reached = await connection.scalar(select(relayed.c.seq).where(relayed.c.shard == shard))
    row = (
        await connection.execute(
            select(outbox)
            .where(outbox.c.shard == shard, outbox.c.seq_last >= last)
            .order_by(outbox.c.seq_last)
            .limit(1)
        )
    ).one_or_none()
    if row is None or row.seq_first > first:
        return [_told(seq, reached) for seq in range(first, last + 1)]
    told = []
    for seq, output in enumerate(unpack(row.body), row.seq_first):
        if first <= seq <= last and output.type != DEAD_LETTER:
            known = _told(seq, reached)
            known["id"] = f"{row.epoch}-{shard}-{seq}"
            known["topic"], known["type"] = TOPICS[output.topic], TYPES[output.type]
            known["partition"] = output.partition
            known["key"] = None if output.key is None else output.key.decode()
            if known["topic"] == "decisions":
                known["said"] = json.loads(output.value or b"{}").get("data")
            told.append(known)
    return told


def _told(seq: int, reached: int | None) -> ToldOutput:
    published = reached is not None and seq <= reached
    return {
        "id": None, "seq": seq, "topic": None, "partition": None, "type": None, "key": None, "published": published
    }  # fmt: skip
