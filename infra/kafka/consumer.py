"""aiokafka's consumer as FastStream gets it: polls are tagged, and no fault in a poll ends or loses anything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError, UnsupportedCodecError

from infra.kafka.by_hand import read_by_hand
from infra.kafka.offsets_in_batches import refuse_offsets_out_of_place
from infra.kafka.reader import PartitionReader
from infra.patience import Patience

log = logging.getLogger(__name__)

_EMPTY_SECONDS = 0.01
_WAITING_MS = 250


class Polled:
    """What one poll gave of one partition, tagged in the same step with the reader that it was polled for.

    It stands for its first record where FastStream asks for one: `topic`, `partition`, `offset`. Without records it
    says that there were none before `next_offset`: only markers of transactions stand there.
    """

    __slots__ = ("generation", "next_offset", "offset", "partition", "reader", "records", "topic")

    def __init__(self, records: Sequence[ConsumerRecord], reader: PartitionReader, next_offset: int) -> None:
        self.topic, self.partition = reader.partition
        self.offset = records[0].offset if records else next_offset
        self.next_offset = next_offset
        self.records = records
        self.reader = reader
        self.generation = reader.generation


Found = dict[TopicPartition, list[Polled]]


class LedgerConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer, whose polls are tagged, and dropped where no reader wants them."""

    def __init__(self, *topics: str, readers: dict[TopicPartition, PartitionReader], **arguments: Any) -> None:
        super().__init__(*topics, **arguments)
        refuse_offsets_out_of_place()
        self.readers = readers
        self.polled_at = time.monotonic()
        """When a poll last began or ended well."""
        self._unreadable: set[TopicPartition] = set()
        self._patience = Patience(f"the consumer of {', '.join(topics) or arguments.get('group_id')}")

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None) -> Found:
        """Poll; between the poll and its tags nothing else runs, so no rebalance comes between.

        Raises: ConsumerStoppedError. FastStream says nothing of other errors, and some of them end its loop.
        """
        try:
            if self._unreadable:
                found = await self._poll_by_hand()
            else:
                polled = await self._poll(timeout_ms, max_records)
                found = self._tagged(polled)
        except ConsumerStoppedError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.exception("a poll was cancelled by something else than our end")
            self._begin_again()
            return {}
        except Exception as fault:
            await self._mend(fault)
            return {}
        self.polled_at = time.monotonic()
        if found:
            self._patience.over()
        return found

    async def _poll(
        self, timeout_ms: int, max_records: int | None
    ) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """Poll the partitions whose readers have room, so that a slow one never stands before the others."""
        bounds = [most for reader in self.readers.values() if (most := reader.read_ahead_most) is not None]
        if max_records is not None:
            max_records = min([max_records, *bounds])
        roomy = [partition for partition, reader in self.readers.items() if reader.has_room]
        if len(roomy) == len(self.readers):
            # FastStream sleeps after an empty poll, and what comes meanwhile waits: so poll for longer.
            waiting_ms = max(timeout_ms, _WAITING_MS)
            found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await super().getmany(
                timeout_ms=waiting_ms, max_records=max_records
            )
            return found
        # Where there is nothing, FastStream's sleep gives the readers time.
        return await super().getmany(*roomy, timeout_ms=0, max_records=max_records) if roomy else {}

    def _tagged(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> Found:
        found: Found = {}
        for partition, reader in self.readers.items():
            records = polled.get(partition, ())
            position = self._position(partition)
            if not reader.reading.is_set() or (position is None and not records):
                continue
            if position is None:
                reader.begin_again()
            elif records or position != reader.next_offset:
                found[partition] = [Polled(records, reader, position)]
        return found

    def _position(self, partition: TopicPartition) -> int | None:
        """The offset after the last poll: after markers of transactions, too, which are no records."""
        subscription = self._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or partition not in assignment.tps:
            return None
        state = assignment.state_value(partition)
        return state.position if state.has_valid_position else None

    async def _poll_by_hand(self) -> Found:
        """What could not be polled, one partition at a time."""
        for partition in list(self._unreadable):
            reader = self.readers.get(partition)
            if reader is None:
                self._unreadable.discard(partition)
                continue
            if not reader.reading.is_set():
                continue
            generation = reader.generation
            chunk = await read_by_hand(self, partition, reader.next_offset)
            if reader.generation != generation or not reader.reading.is_set():
                continue
            self._unreadable.discard(partition)
            self.seek(partition, chunk.next_offset)
            if chunk.next_offset > reader.next_offset:
                return {partition: [Polled(chunk.records, reader, chunk.next_offset)]}
        await asyncio.sleep(_EMPTY_SECONDS)
        return {}

    async def _mend(self, fault: Exception) -> None:
        """Whatever a poll had drained before it raised is gone: read again, by hand if the parser failed."""
        if not isinstance(fault, KafkaError) or isinstance(fault, CorruptRecordException | UnsupportedCodecError):
            log.warning("a record on %s can't be parsed (%r); its place is read by hand", self._names(), fault)
            self._unreadable |= set(self.readers)
            self._begin_again()
            self.polled_at = time.monotonic()
            await asyncio.sleep(_EMPTY_SECONDS)
            return
        await self._patience.wait(f"can't read ({fault!r}); see README, Kafka's rights, if it isn't let in")

    def _begin_again(self) -> None:
        for reader in self.readers.values():
            reader.begin_again()

    def _names(self) -> str:
        return ", ".join(sorted({partition.topic for partition in self.readers}))
