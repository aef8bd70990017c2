"""Idempotency keys: 16 bytes of BLAKE2b over a length-prefixed tuple, so that no text can collide with another space.

Natural keys name a business fact, publisher keys are chosen by whoever sends it, delivery keys name one message.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NewType

Key = NewType("Key", bytes)
"""16 bytes; stored as a UUID."""


def _key(tenant_id: str, space: str, kind: str, parts: tuple[str | None, ...]) -> Key:
    # Every text with its length before it: no other tuple gives the same.
    told = [f"{len(part)}:{part}" if part is not None else "-" for part in parts]
    text = f"{len(tenant_id)}:{tenant_id}{space}{kind}/{len(parts)}/{''.join(told)}"
    return Key(blake2b(text.encode(), digest_size=16).digest())


# One event names what it is about again and again: where it is read, looked for, decided and written.
@lru_cache(maxsize=8_192)
def natural_key(tenant_id: str, kind: str, *parts: str | None) -> Key:
    """The key of a business fact, or of the thing that it made: (tenant, `refund`, provider, refund_id)."""
    return _key(tenant_id, "N", kind, parts)


def publisher_key(tenant_id: str, idempotency_key: str) -> Key:
    """The key that a publisher chose, in a space of its own."""
    return _key(tenant_id, "P", "", (idempotency_key,))


def delivery_key(tenant_id: str, source: str, event_id: str) -> Key:
    """The key of one message, whatever it says."""
    return _key(tenant_id, "D", "", (source, event_id))


def conflict_key(tenant_id: str, source: str, event_id: str, fingerprint: int) -> Key:
    """The key of a known delivery that came again with another body: it is refused once, too."""
    return _key(tenant_id, "C", "", (source, event_id, str(fingerprint)))


def dead_letter_key(topic_id: bytes, partition: int, offset: int) -> Key:
    """The key of a record that was no event, by where it stands. A topic made again has another id."""
    content = b"L" + topic_id + partition.to_bytes(4, "big") + offset.to_bytes(8, "big")
    return Key(blake2b(content, digest_size=16).digest())
