"""The hash chain over a shard's outputs, followed from their published bytes alone.

How the heads are made when an output is written is said in `infra/outputs.py`; this is the same, read backwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import orjson

from infra.outbox import DEAD_LETTER, TYPES, Output

FREE_TEXTS: Mapping[str, tuple[str, ...]] = {
    "entry.recorded.v1": ("description", "metadata"),
    "event.rejected.v1": ("message",),
}
"""Members of `data` that stand last in an output and enter the chain by their hash, in this order."""

_UNCHAINED = frozenset({"balance.changed.v1"})
_LETTER_FACTS = ("topic", "partition", "offset", "timestamp", "code", "message", "group")


def next_head(head: bytes, output: Output, output_id: str) -> bytes:
    """The head after this output, whose id is `{epoch}-{shard}-{seq}`. Raises: KeyError, ValueError when damaged."""
    value = output.value or b""
    if output.type == DEAD_LETTER:
        # The last of a name is ours: a record may have had such headers of its own.
        facts = dict(output.headers)
        named = {f"dlq-{fact}": (facts[f"dlq-{fact}"] or b"").decode() for fact in _LETTER_FACTS}
        return _hash(head, orjson.dumps([output_id, named]), _hash(value))
    kind = TYPES[output.type]
    if kind in _UNCHAINED:
        return head
    free = FREE_TEXTS.get(kind, ())
    if not free:
        return _hash(head, value[:-2])
    told = orjson.loads(value)["data"]
    rest = value[:-2]
    hashes: list[bytes] = []
    for name in reversed([name for name in free if name in told]):
        # Quotes inside of texts are escaped, and a name that metadata has too stands further back.
        begin = rest.index(f',"{name}":'.encode())
        rest, text = rest[:begin], rest[begin:]
        hashes.insert(0, _hash(text))
    return _hash(head, rest, *hashes)


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=32).digest()
