"""Records must stand where their batch says: aiokafka skips those behind one that claims a later offset, silently.

The broker doesn't check the offsets inside a batch that isn't compressed. aiokafka (0.14) goes on from whatever offset
a record claims and takes the records before that for read.
"""

# aiokafka comes without types: its classes are Any to mypy.
# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException

_MAGIC_OF_PLACES = 2


def refuse_offsets_out_of_place() -> None:
    """From now on every consumer of this process raises CorruptRecordException on such a batch."""
    fetcher.PartitionRecords = _CheckedRecords


class _CheckedRecords(PartitionRecords):
    """What a fetch gave of one partition, its batches checked as they are read."""

    def __init__(self, topic_partition: Any, records: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(topic_partition, _CheckedBatches(records), *arguments, **named)


class _CheckedBatches:
    """aiokafka's MemoryRecords, as far as PartitionRecords asks for them."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.has_next = records.has_next

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if getattr(batch, "magic", 0) < _MAGIC_OF_PLACES or batch.is_control_batch:
            return batch
        return _CheckedBatch(batch)


class _CheckedBatch:
    """A batch whose records must have rising offsets within its own."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        before, end = self._batch.base_offset - 1, self._batch.next_offset
        for record in self._batch:
            if not before < record.offset < end:
                raise CorruptRecordException(f"a record of the batch at {self._batch.base_offset} claims another place")
            before = record.offset
            yield record
