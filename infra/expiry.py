"""Expiries as events of their own: journaled like any other, so that a rebuild gives the same books."""

from __future__ import annotations

from datetime import datetime

import orjson

from domain.events import Event
from domain.expiry import EXPIRY_SOURCE, EXPIRY_TYPE, HoldExpired
from infra.records import Origin

_FIELDS = ("hold_id", "provider", "external_id")


def expiry_event(tenant_id: str, command: HoldExpired) -> Event:
    """The event by which a hold, or the hold of an authorization, ends at its time."""
    named = {name: value for name in _FIELDS if (value := getattr(command, name)) is not None}
    data = orjson.dumps(named | {"expires_at": command.expires_at.isoformat()}, option=orjson.OPT_SORT_KEYS)
    return Event(
        EXPIRY_TYPE,
        tenant_id,
        EXPIRY_SOURCE,
        command.key_text,
        command.expires_at,
        command,
        0,
        carried=Origin(data),
    )


def read_expiry(data: bytes) -> HoldExpired:
    """The command of an expiry that was journaled."""
    told = orjson.loads(data)
    return HoldExpired(datetime.fromisoformat(told["expires_at"]), *(told.get(name) for name in _FIELDS))
