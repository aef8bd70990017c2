"""Records that aiokafka can't read, read by hand: what its parser stumbles over would stop a partition for ever.

The broker lets through what aiokafka's parser raises on: a header whose name isn't UTF-8, a record with attributes.
aiokafka then drops all it has read so far, of other partitions too, and fetches the same again, for ever.
"""

# aiokafka comes without types: its classes are Any to mypy.
# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack_from
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import KafkaError, StaleMetadata, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.util import decode_varint
from cramjam import DecompressionError

from infra.records import Headers

FETCH_BYTES = 1 << 20
_LOG_OVERHEAD = 12


class OddHeaders(list[tuple[str, bytes | None]]):
    """The headers of a record that is no event whatever it says, and `fault`, the reason."""

    def __init__(self, headers: Headers, fault: str) -> None:
        super().__init__(headers)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records of a partition, in order, and the offset that follows on them."""

    records: list[ConsumerRecord]
    next_offset: int


async def read_by_hand(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> Chunk:
    """Read committed records from an offset on; a record that can't be read comes with OddHeaders.

    Shape: the records of one fetch; none where there are no more. Raises: KafkaError, OSError.
    """
    client = consumer._client
    node = client.cluster.leader_for_partition(partition)
    if node is None or node == -1:
        client.force_metadata_update()
        raise StaleMetadata(partition)
    place = (partition.topic, [(partition.partition, offset, FETCH_BYTES)])
    response = await client.send(node, FetchRequest(100, 1, FETCH_BYTES, READ_COMMITTED, [place], rack_id=""))
    ((_, ((_, error_code, _, *rest),)),) = response.topics
    if error_code:
        raise for_code(error_code)(partition)
    aborted = rest[2] if response.API_VERSION >= 11 else rest[-2]
    batches = _Batches(rest[-1])
    found = PartitionRecords(partition, batches, aborted, offset, None, None, False, READ_COMMITTED)
    records = [_with_fault(record, batches.faults) for record in found]
    return Chunk(records, found.next_fetch_offset)


def _with_fault(record: ConsumerRecord, faults: dict[int, str]) -> ConsumerRecord:
    fault = faults.get(record.offset)
    if fault is not None:
        # Not a field of the dataclass that it is, but its only reader is ours.
        record.headers = OddHeaders(record.headers, fault)
    return record


class _Batches:
    """The batches of a fetch, as aiokafka's PartitionRecords asks for them; `faults` by offset."""

    def __init__(self, data: bytes) -> None:
        self.faults: dict[int, str] = {}
        self._slices = _slices(data)
        self._next = next(self._slices, None)

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> _PatientBatch:
        assert self._next is not None
        batch = _PatientBatch(self._next, self.faults)
        self._next = next(self._slices, None)
        return batch


def _slices(data: bytes) -> Iterator[bytes]:
    """Whole batches; the last of a fetch may be cut."""
    start = 0
    while start + _LOG_OVERHEAD <= len(data):
        end = start + _LOG_OVERHEAD + int(unpack_from(">i", data, start + 8)[0])
        if end > len(data):
            return
        yield data[start:end]
        start = end


class _PatientBatch(_DefaultRecordBatchPy):
    """A batch whose records can all be had; one that can't be read at all is one record, its bytes the value."""

    def __init__(self, data: bytes, faults: dict[int, str]) -> None:
        super().__init__(data)
        self._pos: int = self.HEADER_STRUCT.size
        self._data = data
        self._faults = faults

    def __iter__(self) -> Iterator[Any]:
        if self.is_control_batch:
            self._maybe_uncompress()
            return self
        return iter(self._all_records())

    def _all_records(self) -> list[_DefaultRecordPy]:
        try:
            if not self.validate_crc():
                raise ValueError("its checksum is wrong")
            self._maybe_uncompress()
            return [self._read_msg() for _ in range(self._num_records)]
        except (ValueError, IndexError, KafkaError, OSError, MemoryError, DecompressionError) as fault:
            self._faults[self.base_offset] = (
                f"the records of offsets {self.base_offset} to {self.next_offset - 1} can't be read ({fault}); "
                "the value is their batch as Kafka has it"
            )
            return [_DefaultRecordPy(self.base_offset, self.max_timestamp, 0, None, self._data, [])]

    def _read_msg(self) -> _DefaultRecordPy:
        buffer, number = self._buffer, self._next_record_index
        self._next_record_index += 1
        length, start = decode_varint(buffer, self._pos)
        # One byte of attributes, unused by Kafka: aiokafka takes it for a number of several.
        delta, pos = decode_varint(buffer, start + 1)
        timestamp = self.max_timestamp if self.timestamp_type else self.first_timestamp + delta
        offset_delta, pos = decode_varint(buffer, pos)
        if self._num_records == self.last_offset_delta + 1:
            # The broker doesn't check what a record says of its own place.
            offset_delta = number
        key, pos = _sized(buffer, pos)
        value, pos = _sized(buffer, pos)
        count, pos = decode_varint(buffer, pos)
        headers: list[tuple[str, bytes | None]] = []
        offset = self.base_offset + offset_delta
        for _ in range(count):
            name, pos = _sized(buffer, pos)
            content, pos = _sized(buffer, pos)
            headers.append((self._name(name or b"", offset), content))
        if pos - start != length:
            raise ValueError(f"record {number} has {pos - start} bytes instead of {length}")
        self._pos = pos
        return _DefaultRecordPy(offset, timestamp, self.timestamp_type, key, value, headers)

    def _name(self, name: bytes, offset: int) -> str:
        try:
            return name.decode()
        except UnicodeDecodeError:
            text = name.decode(errors="backslashreplace")
            self._faults[offset] = f"the name of a header isn't UTF-8: {text}"
            return text


def _sized(buffer: bytearray, pos: int) -> tuple[bytes | None, int]:
    size, pos = decode_varint(buffer, pos)
    if size < 0:
        return None, pos
    if pos + size > len(buffer):
        raise ValueError("it ends within a record")
    return bytes(buffer[pos : pos + size]), pos + size
