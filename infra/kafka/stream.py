"""One input stream: what is polled of it is parsed and handed to the readers of its partitions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition

from domain.events import Event
from infra.kafka.batches import Prepared
from infra.kafka.by_hand import OddHeaders
from infra.kafka.consumer import LedgerConsumer, Polled
from infra.kafka.reader import PartitionReader
from infra.patience import Patience
from infra.records import DeadLetter, InputRecord
from schemas.wire import Malformed, WireEvent, printable, read

log = logging.getLogger(__name__)

Translate = Callable[[WireEvent, InputRecord], Event | DeadLetter]
NewReader = Callable[[TopicPartition, LedgerConsumer], PartitionReader]

PARSED_AT_ONCE = 16
"""How many records are parsed before others may run: a millisecond."""
LEAVE_SECONDS = 5.0


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Gives each assigned partition a reader, and takes it away."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._stream.end_readers(revoked)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        # Everything up to the pause happens before anything is awaited: aiokafka goes on fetching meanwhile.
        self._stream.begin_readers(assigned)


class Stream:
    """One input stream: its subscriber, its readers."""

    def __init__(self, name: str, topic: str, new_reader: NewReader, is_ending: Callable[[], bool]) -> None:
        """`is_ending()`: this process stops reading."""
        self.name = name
        self.topic = topic
        self.readers: dict[TopicPartition, PartitionReader] = {}
        self.assigned = asyncio.Event()
        self.working = False
        self._new_reader = new_reader
        self._is_ending = is_ending
        self._patience = Patience(self.topic)
        self.listener = _Listener(self)
        self.subscriber: Any = None

    @property
    def consumer(self) -> LedgerConsumer | None:
        return None if self.subscriber is None else self.subscriber.consumer

    def begin_readers(self, assigned: set[TopicPartition]) -> None:
        consumer = self.consumer
        if self._is_ending() or consumer is None:
            return
        for partition in assigned:
            reader = self._new_reader(partition, consumer)
            self.readers[partition] = reader
            reader.start()
        self.assigned.set()

    async def end_readers(self, revoked: set[TopicPartition]) -> None:
        ending = [self.readers.pop(partition) for partition in revoked if partition in self.readers]
        await asyncio.gather(*(reader.leave(LEAVE_SECONDS) for reader in ending))

    async def take(self, batch: Sequence[Polled], translate: Translate) -> None:
        """Parse what was polled and hand it to its readers; never raises but when this process ends."""
        self.working = True
        try:
            for polled in batch:
                await self._take_one(polled, translate)
        except asyncio.CancelledError:
            if self._is_ending():
                raise
            # A stray cancellation would end FastStream's loop for good, and say nothing.
            log.exception("%s: a handler was cancelled by something else than our end", self.topic)
            self._begin_again(batch)
        except Exception as fault:
            self._begin_again(batch)
            await self._patience.wait(f"a handler failed ({fault!r})", unforeseen=fault)
        else:
            self._patience.over()
        finally:
            self.working = False

    async def _take_one(self, polled: Polled, translate: Translate) -> None:
        events: list[Event] = []
        letters: list[DeadLetter] = []
        reader = polled.reader
        for start in range(0, len(polled.records), PARSED_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            for raw in polled.records[start : start + PARSED_AT_ONCE]:
                made = read_one(raw, reader.topic_id, self.name, translate)
                if isinstance(made, DeadLetter):
                    letters.append(made)
                else:
                    events.append(made)
        size = sum(len(raw.value or b"") for raw in polled.records)
        await reader.offer(Prepared(polled.generation, polled.offset, polled.next_offset, events, letters, size))

    def _begin_again(self, batch: Sequence[Polled]) -> None:
        for polled in batch:
            polled.reader.begin_again()


def read_one(raw: ConsumerRecord, topic_id: UUID, stream: str, translate: Translate) -> Event | DeadLetter:
    """The event that a record is, or why it is none."""
    record = InputRecord(raw.topic, topic_id, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, raw.headers)
    if isinstance(raw.headers, OddHeaders):
        return DeadLetter(record, "malformed", printable(raw.headers.fault))
    wire = read(raw.value, raw.headers, stream)
    if isinstance(wire, Malformed):
        return DeadLetter(record, wire.code, wire.message)
    try:
        return translate(wire, record)
    except Exception as fault:
        # One record that we failed to foresee must not stop its partition for ever.
        log.exception("%s[%s]: record %s can't be translated", raw.topic, raw.partition, raw.offset)
        return DeadLetter(record, "unstorable", f"can't be translated: {type(fault).__name__}")


class Batch:
    """What a handler gets: the records that one poll gave of its stream."""

    __slots__ = ("_polled", "_stream")

    def __init__(self, stream: Stream, polled: Sequence[Polled]) -> None:
        self._stream = stream
        self._polled = polled

    async def hand_over(self, translate: Translate) -> None:
        """Parse the records and hand them to the ledger, in order; returns when there is room for more."""
        await self._stream.take(self._polled, translate)
