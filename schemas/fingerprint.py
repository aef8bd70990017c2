"""The fingerprint of an event: equal for two deliveries of the same fact, whatever they were wrapped in.

It is kept for ever beside the keys of the event, so neither the bytes that are hashed nor the hash may change without
a new FINGERPRINT_VERSION.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import Any

import jiter

from schemas import canonical
from schemas.registry import EVENT_TYPES, NEVER_IN_FINGERPRINT, family_of

FINGERPRINT_VERSION = 1


class Fingerprinter:
    """Takes the fingerprints of one type of event."""

    __slots__ = ("_defaults", "_family", "_sometimes_left_out")

    def __init__(self, event_type: str) -> None:
        known = EVENT_TYPES.get(event_type)
        self._defaults = known.defaults if known else {}
        self._sometimes_left_out = NEVER_IN_FINGERPRINT | self._defaults.keys()
        self._family = blake2b(family_of(event_type).encode() + b"\x00", digest_size=8)

    def fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """Leave only what matters to money and identity: a field that was given its default is as if left out."""
        if self._sometimes_left_out.isdisjoint(data):
            return data
        defaults = self._defaults
        return {
            name: value
            for name, value in data.items()
            if name not in NEVER_IN_FINGERPRINT and not (name in defaults and value == defaults[name])
        }

    def take(self, data: dict[str, Any], data_json: bytes) -> int:
        """Give the fingerprint of `data`, whose canonical JSON is `data_json`. Unit: a signed integer of 64 bits."""
        fields = self.fields(data)
        hashed = self._family.copy()
        hashed.update(data_json if len(fields) == len(data) else canonical.dump(fields))
        return int.from_bytes(hashed.digest(), "big", signed=True)


@cache
def _fingerprinter(event_type: str) -> Fingerprinter:
    return Fingerprinter(event_type)


def differing_fields(type_a: str, data_json_a: bytes, type_b: str, data_json_b: bytes) -> list[str]:
    """Name the fields, sorted, by which two events with the same key differ; `type` if their families do."""
    fields_a = _fingerprinter(type_a).fields(jiter.from_json(data_json_a))
    fields_b = _fingerprinter(type_b).fields(jiter.from_json(data_json_b))
    differing = {name for name in fields_a.keys() | fields_b.keys() if not _same(name, fields_a, fields_b)}
    if family_of(type_a) != family_of(type_b):
        differing.add("type")
    return sorted(differing)


def _same(name: str, fields_a: dict[str, Any], fields_b: dict[str, Any]) -> bool:
    # Compared as they are hashed: to Python 1 equals true, to the fingerprint it doesn't.
    return name in fields_a and name in fields_b and canonical.dump(fields_a[name]) == canonical.dump(fields_b[name])
