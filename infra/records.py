"""Records of input topics, and what the ledger is handed of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from domain.events import Event

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(slots=True)
class InputRecord:
    """One record as Kafka has it. `topic` is the full name; times in milliseconds since 1970."""

    topic: str
    topic_id: UUID
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class DeadLetter:
    """A record that is no event, or that could not be stored, and why."""

    record: InputRecord
    code: str
    message: str


@dataclass(slots=True)
class Origin:
    """Where an event came from: what the shell keeps beside the domain's event. `data` is the JSON of its data."""

    data: bytes
    record: InputRecord | None = None


@dataclass(slots=True)
class OffsetSwap:
    """From where to where the read position of a partition moves, if it still stands where this reader left it.

    `expected` is None where the partition was never read.
    """

    topic: str
    topic_id: UUID
    partition: int
    expected: int | None
    next_offset: int


@dataclass(slots=True)
class Late:
    """What a batch gets in the moment of its turn: what came while it waited, and the position after that."""

    events: Sequence[Event]
    dead_letters: Sequence[DeadLetter]
    offsets: OffsetSwap
