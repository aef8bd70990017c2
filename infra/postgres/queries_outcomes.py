"""What was not applied and why: rejections, what is parked, dead letters; and how far behind the relay is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, Table, and_, func, literal, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.kafka.partitioner import partition_of
from infra.postgres.queries_places import NotFound, find_shard
from infra.postgres.tables import dead_letters, events, idempotency_keys, input_offsets, ledger, parked, relayed, shards

Place = tuple[int, int]
"""The shard and the seq of a row."""


class EventPlace(TypedDict):
    """Which event it was and where it was read; None what it did not have."""

    type: str
    id: str
    source: str
    idempotency_key: str | None
    topic: str | None
    partition: int | None
    offset: int | None


class Rejection(TypedDict):
    """A refused event. `id` is `shard-seq` of its rejection, for `show`; `data` and `traceparent` only there."""

    id: str
    code: str
    message: str | None
    event: EventPlace
    occurred_at: datetime
    recorded_at: datetime
    traceparent: NotRequired[str | None]
    data: NotRequired[Any]


class ParkedEvent(TypedDict):
    """An event that waits; with its patience over at `expires_at` it is rejected with `code`."""

    id: str
    waits_for: str | None
    since: datetime
    expires_at: datetime
    code: str
    event: EventPlace
    occurred_at: datetime
    traceparent: NotRequired[str | None]
    data: NotRequired[Any]


class DeadLetter(TypedDict):
    """A record that was no event."""

    id: str
    topic: str
    partition: int
    offset: int
    code: str
    message: str
    recorded_at: datetime


class DeadLetterRecord(DeadLetter):
    """The same with its bytes, as they came."""

    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: bytes


class InputPosition(TypedDict):
    topic: str
    partition: int
    next_offset: int


class Unrelayed(TypedDict):
    """How many outputs of a shard are not out yet, as far as the relay has told."""

    shard: int
    unrelayed: int


async def list_rejections(
    connection: AsyncConnection, tenant_id: str, *, code: str | None = None, limit: int | None = None
) -> AsyncIterator[Rejection]:
    """A tenant's refused events, the last first. Raises: NotFound.

    A tenant that is not registered has some, too, where only registered ones may have events: on the shard of its hash.
    """
    query = _events(await _shard_of_refused(connection, tenant_id), tenant_id, "rejected")
    if code is not None:
        query = query.where(events.c.code == code)
    async for row in await connection.stream(query.order_by(events.c.seq.desc()).limit(limit)):
        yield _rejection(row)


async def rejection(connection: AsyncConnection, tenant_id: str, place: Place) -> Rejection:
    """One refused event, with its data. Raises: NotFound."""
    query = _events(await _shard_of_refused(connection, tenant_id), tenant_id, "rejected")
    row = (await connection.execute(query.where(*_at(events, place)))).one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has no rejection {place[0]}-{place[1]}")
    return {**_rejection(row), "traceparent": row.traceparent, "data": json.loads(row.data)}


async def list_parked(
    connection: AsyncConnection, tenant_id: str, *, code: str | None = None, limit: int | None = None
) -> AsyncIterator[ParkedEvent]:
    """A tenant's events that wait for something, the first first. Raises: NotFound."""
    query = _parked(await find_shard(connection, tenant_id), tenant_id)
    if code is not None:
        query = query.where(events.c.code == code)
    async for row in await connection.stream(query.order_by(events.c.seq).limit(limit)):
        yield _parked_event(row)


async def parked_event(connection: AsyncConnection, tenant_id: str, place: Place) -> ParkedEvent:
    """One event that waits, with its data. Raises: NotFound."""
    query = _parked(await find_shard(connection, tenant_id), tenant_id)
    row = (await connection.execute(query.where(*_at(events, place)))).one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant_id!r} has nothing parked at {place[0]}-{place[1]}")
    return {**_parked_event(row), "traceparent": row.traceparent, "data": json.loads(row.data)}


async def list_dead_letters(
    connection: AsyncConnection, *, code: str | None = None, limit: int | None = None
) -> AsyncIterator[DeadLetter]:
    """The records that were no events, the last of each shard first."""
    query = select(dead_letters).order_by(dead_letters.c.shard, dead_letters.c.seq.desc()).limit(limit)
    if code is not None:
        query = query.where(dead_letters.c.code == code)
    async for row in await connection.stream(query):
        yield _dead_letter(row)


async def dead_letter(connection: AsyncConnection, place: Place) -> DeadLetterRecord:
    """One record that was no event, with its bytes. Raises: NotFound."""
    query = select(dead_letters).where(*_at(dead_letters, place))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"no dead letter {place[0]}-{place[1]}")
    return {
        **_dead_letter(row),
        "timestamp_ms": row.timestamp_ms,
        "key": row.key,
        "value": row.value,
        "headers": row.headers,
    }


async def held_keys(connection: AsyncConnection, shard: int, keys: Iterable[bytes]) -> dict[bytes, int]:
    """Which of these idempotency keys are taken, and the seq of the event that has each."""
    wanted = [UUID(bytes=key) for key in keys]
    query = select(idempotency_keys.c.key, idempotency_keys.c.seq).where(
        idempotency_keys.c.shard == shard, idempotency_keys.c.key.in_(wanted)
    )
    return {key.bytes: seq for key, seq in await connection.execute(query)}


async def input_positions(connection: AsyncConnection) -> list[InputPosition]:
    """The offset that is read next of every input partition that was ever read.

    A topic that was made anew has a line of its own per topic id in the table; the latest one counts.
    """
    columns = (input_offsets.c.topic, input_offsets.c.partition, input_offsets.c.next_offset)
    query = (
        select(*columns)
        .ext(distinct_on(input_offsets.c.topic, input_offsets.c.partition))
        .order_by(input_offsets.c.topic, input_offsets.c.partition, input_offsets.c.updated_at.desc())
    )
    return [
        {"topic": topic, "partition": partition, "next_offset": next_offset}
        for topic, partition, next_offset in await connection.execute(query)
    ]


async def unrelayed(connection: AsyncConnection) -> list[Unrelayed]:
    """How many outputs each shard still has to publish, by the relay's own hint, which may be a little old."""
    query = (
        select(shards.c.shard, shards.c.next_seq - 1 - func.coalesce(relayed.c.seq, 0))
        .outerjoin(relayed, relayed.c.shard == shards.c.shard)
        .order_by(shards.c.shard)
    )
    return [{"shard": shard, "unrelayed": max(count, 0)} for shard, count in await connection.execute(query)]


async def _shard_of_refused(connection: AsyncConnection, tenant_id: str) -> int:
    try:
        return await find_shard(connection, tenant_id)
    except NotFound:
        count = (await connection.execute(select(ledger.c.shards))).scalar_one()
        shard = partition_of(tenant_id.encode(), count)
        anything = _events(shard, tenant_id, "rejected").with_only_columns(literal(True)).limit(1)
        if (await connection.execute(anything)).first() is None:
            raise
        return shard


def _at(table: Table, place: Place) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.shard == place[0], table.c.seq == place[1]


def _events(shard: int, tenant_id: str, outcome: str) -> Select[Any]:
    # The index on what was not applied has this very condition; without it every event would be looked at.
    return select(events).where(
        events.c.shard == shard,
        events.c.outcome != "applied",
        events.c.outcome == outcome,
        events.c.tenant_id == tenant_id,
    )


def _parked(shard: int, tenant_id: str) -> Select[Any]:
    return (
        select(events, parked.c.expires_at)
        .join_from(parked, events, and_(events.c.shard == parked.c.shard, events.c.seq == parked.c.seq))
        .where(parked.c.shard == shard, events.c.tenant_id == tenant_id)
    )


def _event_place(row: Row[Any]) -> EventPlace:
    return {
        "type": row.type,
        "id": row.event_id,
        "source": row.source,
        "idempotency_key": row.idempotency_key,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
    }


def _rejection(row: Row[Any]) -> Rejection:
    return {
        "id": f"{row.shard}-{row.seq}",
        "code": row.code,
        "message": row.message,
        "event": _event_place(row),
        "occurred_at": row.occurred_at,
        "recorded_at": row.recorded_at,
    }


def _parked_event(row: Row[Any]) -> ParkedEvent:
    return {
        "id": f"{row.shard}-{row.seq}",
        "waits_for": row.waits_for,
        "since": row.recorded_at,
        "expires_at": row.expires_at,
        "code": row.code,
        "event": _event_place(row),
        "occurred_at": row.occurred_at,
    }


def _dead_letter(row: Row[Any]) -> DeadLetter:
    return {
        "id": f"{row.shard}-{row.seq}",
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "code": row.code,
        "message": row.message,
        "recorded_at": row.recorded_at,
    }
