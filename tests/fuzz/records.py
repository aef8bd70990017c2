"""Record after record for the parsers, each a function of the seed and its number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from schemas.registry import EVENT_TYPES
from tests.fixtures.raw_batches import RawRecord, batch_of
from tests.fuzz import mutations
from tests.fuzz.mutations import Headers
from tests.fuzz.samples import TYPES, Document, from_schema, like_example


@dataclass(slots=True)
class Record:
    """What stands on a topic (short name). `good`: an event that must be read."""

    topic: str
    value: bytes | None
    headers: Headers = field(default_factory=list)
    good: bool = False


class RawBatch(NamedTuple):
    """Records as the broker hands them out where aiokafka can't read them: a batch in Kafka's own format."""

    topic: str
    data: bytes


def record(seed: int, number: int) -> Record | RawBatch:
    """The record of this number; the same for the same seed, wherever and whenever."""
    # Seeded with a text: Random mixes numbers that lie close together badly.
    chance = Random(f"{seed}-{number}")
    roll = chance.random()
    for share, make in _KINDS:
        if roll < share:
            return make(chance)
        roll -= share
    return _good(chance)


def _good(chance: Random) -> Record:
    document = like_example(chance, chance.choice(TYPES))
    made = _published(chance, document)
    made.good = True
    return made


def _from_schema(chance: Random) -> Record:
    return _published(chance, from_schema(chance, chance.choice(TYPES)))


def _bent(chance: Random) -> Record:
    make = like_example if chance.random() < 0.6 else from_schema
    document = copy.deepcopy(make(chance, chance.choice(TYPES)))
    topic = _topic_of(document)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        mutations.bend(chance, document)
    bent = _published(chance, document)
    bent.topic = topic if chance.random() < 0.9 else mutations.elsewhere(chance)
    return bent


def _garbled(chance: Random) -> Record:
    sound = _good(chance)
    value = sound.value or b""
    for _ in range(chance.choice((1, 1, 2, 5))):
        value = mutations.garbled(chance, value)
    return Record(sound.topic, value, sound.headers)


def _headed(chance: Random) -> Record:
    document = like_example(chance, chance.choice(TYPES))
    value, headers = mutations.in_binary_mode(chance, document)
    return Record(_topic_of(document), value, mutations.bent_headers(chance, headers))


def _garbage(chance: Random) -> Record:
    sound = _good(chance)
    return Record(sound.topic, mutations.garbage(chance, sound.value or b""), sound.headers)


def _huge(chance: Random) -> Record:
    sound = _good(chance)
    return Record(sound.topic, mutations.huge(chance, sound.value or b""))


def _raw(chance: Random) -> RawBatch:
    """A batch with a checksum that is right, as a broker would let it pass, and something else that isn't."""
    sound = [_headed(chance) if chance.random() < 0.5 else _good(chance) for _ in range(chance.randint(1, 3))]
    records = [_raw_record(chance, each) for each in sound]
    return RawBatch(sound[0].topic, mutations.broken_batch(chance, batch_of(records)))


def _raw_record(chance: Random, sound: Record) -> RawRecord:
    headers = [(name.encode(), content) for name, content in sound.headers]
    if chance.random() < 0.5:
        headers.append((chance.choice(mutations.BROKEN_UTF8), None))
    attributes, delta = chance.choice(((0, None), (7, None), (0, 5), (255, -1)))
    return RawRecord(sound.value, chance.choice((None, b"", b"acme")), headers, attributes, delta)


_KINDS: tuple[tuple[float, Callable[[Random], Record | RawBatch]], ...] = (
    (0.15, _from_schema),
    (0.35, _bent),
    (0.12, _garbled),
    (0.06, _headed),
    (0.05, _garbage),
    (0.02, _raw),
    (0.002, _huge),
)
"""The share of each kind; the rest are good."""


def _published(chance: Random, document: Document) -> Record:
    roll = chance.random()
    topic = _topic_of(document)
    if roll < 0.2 and document.get("specversion") is not None:
        value, headers = mutations.in_binary_mode(chance, document)
        return Record(topic, value, headers)
    value = mutations.written(chance, document)
    if roll < 0.3:
        return Record(topic, value, [("content-type", b"Application/CloudEvents+JSON; charset=utf-8")])
    return Record(topic, value, mutations.noise(chance) if roll < 0.4 else [])


def _topic_of(document: Document) -> str:
    name = document.get("type")
    known = EVENT_TYPES.get(name) if isinstance(name, str) else None
    return known.topic if known else "payments"
