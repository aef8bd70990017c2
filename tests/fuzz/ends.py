"""How a record ends, and what must be true of it then: the ways that a worker's records go, without a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords

from consumers.translate import read_command, to_event, translator
from domain.events import Event
from domain.needs import Needs
from infra import outbox
from infra.kafka.by_hand import _Batches, _with_fault
from infra.kafka.stream import read_one
from infra.outputs import OutputWriter
from infra.postgres.load import name_needs
from infra.postgres.migrate import GENESIS_HEAD
from infra.records import DeadLetter, Origin
from schemas.registry import EVENT_TYPES
from schemas.wire import MESSAGE_LENGTH_MAX, MalformedCode, WireEvent, read
from tests.fuzz.records import RawBatch, Record

SHARDS = 4
CODES = frozenset({*get_args(MalformedCode), "unstorable"})
UNFORESEEN = ("can't be read: ", "can't be translated: ")
"""How a record is told that only the last resort caught: it stops nothing, but nobody thought of it."""
_TOPIC_ID = UUID(int=7)
_NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)

_translate = translator(SHARDS)


@dataclass(slots=True)
class Ends:
    """How the records of a run ended."""

    records: int = 0
    events: Counter[str] = field(default_factory=Counter)
    """By type."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """By code."""

    def count(self, made: Record | RawBatch) -> None:
        """Let a record end, and check its end. Raises: AssertionError, and whatever a parser shouldn't."""
        for raw in _as_polled(made):
            self.records += 1
            end = read_one(raw, _TOPIC_ID, made.topic, _translate)
            if isinstance(end, DeadLetter):
                _check_letter(end, raw)
                assert not (isinstance(made, Record) and made.good), f"a good event was refused: {end.message}"
                self.dead_letters[end.code] += 1
            else:
                _check_event(end)
                self.events[end.type] += 1


def _as_polled(made: Record | RawBatch) -> Iterator[ConsumerRecord]:
    topic = f"ledger.{made.topic}"
    if isinstance(made, Record):
        yield ConsumerRecord(topic, 1, 41, 0, 0, b"acme", made.value, None, -1, -1, made.headers)
        return
    # As `read_by_hand` goes through what was fetched.
    batches = _Batches(made.data)
    place = TopicPartition(topic, 1)
    for record in PartitionRecords(place, batches, None, 0, None, None, False, READ_COMMITTED):
        yield _with_fault(record, batches.faults)


# --- events ---------------------------------------------------------------------------------------------------------


def _check_event(event: Event) -> None:
    """It can be stored; what the journal keeps of it is the same command and the same fingerprint."""
    origin: Origin = event.carried
    assert read_command(event.type, origin.data) == event.command
    again = _published_again(event, origin)
    assert again.command == event.command
    assert again.fingerprint == event.fingerprint
    assert again.carried.data == origin.data
    assert (again.natural, again.publisher, again.delivery) == (event.natural, event.publisher, event.delivery)
    assert -(2**63) <= event.fingerprint < 2**63
    assert event.occurred_at.tzinfo is UTC and 1970 <= event.occurred_at.year <= 2199
    texts = (event.type, event.tenant_id, event.source, event.event_id, event.idempotency_key, event.traceparent)
    for text in (*texts, origin.data.decode()):
        assert text is None or "\x00" not in text.encode().decode()
    assert b"\\u0000" not in origin.data.replace(b"\\\\", b"")
    name_needs(event, Needs())


def _published_again(event: Event, origin: Origin) -> Event:
    """The event as one would publish it from what is journaled."""
    attributes = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": event.source,
        "type": event.type,
        "time": event.occurred_at.isoformat(),
        "tenantid": event.tenant_id,
        "idempotencykey": event.idempotency_key,
    }
    # In binary mode: data as deep as is taken would be too deep inside of an envelope.
    headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items() if text is not None]
    wire = read(origin.data, headers, EVENT_TYPES[event.type].topic)
    assert isinstance(wire, WireEvent), wire
    return to_event(wire, None)


# --- dead letters ---------------------------------------------------------------------------------------------------


def _check_letter(letter: DeadLetter, raw: ConsumerRecord) -> None:
    """It has a stable code and a readable reason, and goes out with the bytes that came."""
    assert letter.code in CODES
    assert letter.message.isprintable() and 0 < len(letter.message) <= MESSAGE_LENGTH_MAX, letter.message
    assert not letter.message.startswith(UNFORESEEN), letter.message
    writer = OutputWriter(
        epoch=1, shard=0, next_seq=1, head=GENESIS_HEAD, recorded_at=_NOW,
        partitions=dict.fromkeys(outbox.TOPICS, SHARDS), value_bytes_max=dict.fromkeys(outbox.TOPICS, 1 << 21),
    )  # fmt: skip
    writer.dead_letter(letter, "ledgerstream")
    (output,) = outbox.unpack(outbox.pack(writer.frames))
    assert (output.key, output.value) == (raw.key, raw.value)
    assert list(output.headers)[: len(raw.headers)] == list(raw.headers)
