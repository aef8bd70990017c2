"""From the wire models of all streams to domain commands: one table, filled by the streams' modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from consumers import authorizations, commands, credit, disputes, payments, payouts, refunds, transfers
from domain.administration import TenantCreate
from domain.events import Command, Event
from domain.expiry import EXPIRY_TYPE
from infra.expiry import read_expiry
from infra.records import DeadLetter, InputRecord, Origin
from schemas.wire import WireEvent, read_journal

TRANSLATIONS: Mapping[str, Callable[[Any], Command]] = MappingProxyType(
    {
        **payments.TRANSLATIONS,
        **refunds.TRANSLATIONS,
        **transfers.TRANSLATIONS,
        **payouts.TRANSLATIONS,
        **disputes.TRANSLATIONS,
        **authorizations.TRANSLATIONS,
        **commands.TRANSLATIONS,
        **credit.TRANSLATIONS,
    }
)
"""By the type of the event."""


def read_command(event_type: str, data_json: bytes) -> Command:
    """The command of an event that was journaled; expiries come from the clock, not over the wire."""
    if event_type == EXPIRY_TYPE:
        return read_expiry(data_json)
    return TRANSLATIONS[event_type](read_journal(event_type, data_json))


def to_event(wire: WireEvent, record: InputRecord | None) -> Event:
    """The domain's event, with its command and its keys."""
    return Event(
        wire.type,
        wire.tenant_id,
        wire.source,
        wire.event_id,
        wire.time,
        TRANSLATIONS[wire.type](wire.data),
        wire.fingerprint,
        wire.idempotency_key,
        wire.traceparent,
        carried=Origin(wire.data_json, record),
    )


def translator(shards: int) -> Callable[[WireEvent, InputRecord], Event | DeadLetter]:
    """From what was read to what the ledger is handed; a tenant can't be put on a shard that there isn't."""

    def translate(wire: WireEvent, record: InputRecord) -> Event | DeadLetter:
        event = to_event(wire, record)
        command = event.command
        if isinstance(command, TenantCreate) and command.shard is not None and command.shard >= shards:
            return DeadLetter(
                record, "malformed", f"data.shard: is {command.shard}, but this ledger has shards 0 to {shards - 1}"
            )
        return event

    return translate
