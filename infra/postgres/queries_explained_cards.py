"""Where a hold or a card payment stands, and by which events: each from its place in Kafka to what was said of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NotRequired, TypedDict, final
from uuid import UUID

from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.expiry import HoldExpired
from domain.ids import place_of
from domain.keys import natural_key
from domain.reservations import hold_key
from infra.postgres.queries_cards import AuthorizationDocument, authorization
from infra.postgres.queries_explained import Origin, ToldOutput, find_event, origin_of, outputs_of
from infra.postgres.queries_holds import HoldDocument, hold
from infra.postgres.queries_outcomes import held_keys
from infra.postgres.queries_places import find_shard
from infra.postgres.tables import events, holds
from schemas import canonical

ADJUSTED = "hold.adjusted.v1"


class ExplainedEvent(TypedDict):
    """One handling of an event: `outcome` is applied, parked or rejected, `code` why it wasn't applied.

    `superseded`, of a hold's adjustment: it came after a later one, and changed nothing.
    """

    event: Origin
    outcome: str
    code: str | None
    outputs: list[ToldOutput]
    superseded: NotRequired[bool]


@final
class ExplainedAuthorization(TypedDict):
    """All that was applied to an authorization, in the order of the ledger."""

    authorization: AuthorizationDocument
    events: list[ExplainedEvent]


@final
class ExplainedHold(TypedDict):
    """What made a hold, adjusted, captured and ended it, in the order of the ledger.

    `adjusted_at`: the `time` of the adjustment that counts.
    """

    hold: HoldDocument
    adjusted_at: datetime | None
    events: list[ExplainedEvent]


async def explain_authorization(
    connection: AsyncConnection, tenant_id: str, provider: str, external_id: str
) -> ExplainedAuthorization:
    """A card payment, and each event of its life from its place in Kafka to what was said of it. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    document = await authorization(connection, tenant_id, provider, external_id)
    seqs = [event["seq"] for event in document["events"]]
    return {"authorization": document, "events": await _told(connection, shard, seqs)}


async def explain_hold(connection: AsyncConnection, tenant_id: str, hold_id: str) -> ExplainedHold:
    """A hold, and the events of its life, each as `explain_authorization` tells it. Raises: NotFound."""
    shard = await find_shard(connection, tenant_id)
    document = await hold(connection, tenant_id, hold_id)
    key = hold_key(tenant_id, hold_id)
    ends = HoldExpired(document["expires_at"], hold_id).natural_key(tenant_id)
    keys = (key, natural_key(tenant_id, "capture", hold_id, None), natural_key(tenant_id, "void", hold_id), ends)
    claimed = await held_keys(connection, shard, map(bytes, keys))
    captured = {place_of(UUID(entry_id))[2] for entry_id in document["entry_ids"]}
    adjusted_at = await connection.scalar(
        select(holds.c.adjusted_at).where(holds.c.shard == shard, holds.c.hold_key == UUID(bytes=bytes(key)))
    )
    adjusted = [] if adjusted_at is None else await _adjustments(connection, shard, tenant_id, hold_id)
    told = await _told(connection, shard, sorted({*claimed.values(), *captured, *adjusted}))
    _mark_superseded(told)
    return {"hold": document, "adjusted_at": adjusted_at, "events": told}


async def _adjustments(connection: AsyncConnection, shard: int, tenant_id: str, hold_id: str) -> list[int]:
    """The seqs of a hold's adjustments, out of all of its tenant's; their `data` is canonical JSON, nothing nested."""
    named = f'"hold_id":{canonical.dump(hold_id).decode()}'
    found = await connection.scalars(
        select(events.c.seq)
        .where(events.c.shard == shard, events.c.tenant_id == tenant_id)
        .where(events.c.type == literal_column(f"'{ADJUSTED}'"), events.c.outcome == literal_column("'applied'"))
        .where(func.strpos(events.c.data, named) > 0)
    )
    return list(found)


def _mark_superseded(told: Iterable[ExplainedEvent]) -> None:
    """Say of each adjustment whether a later one was there already."""
    latest: datetime | None = None
    for each in told:
        if each["event"]["type"] == ADJUSTED:
            happened = each["event"]["occurred_at"]
            each["superseded"] = latest is not None and happened < latest
            if not each["superseded"]:
                latest = happened


async def _told(connection: AsyncConnection, shard: int, seqs: Iterable[int]) -> list[ExplainedEvent]:
    told: list[ExplainedEvent] = []
    for seq in seqs:
        row = await find_event(connection, shard, seq)
        told.append(
            {
                "event": await origin_of(connection, row),
                "outcome": row.outcome,
                "code": row.code,
                "outputs": await outputs_of(connection, shard, seq, seq + row.outputs - 1),
            }
        )
    return told
