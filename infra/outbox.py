"""The form of an outbox row: framed outputs, compressed together, their bytes fixed when the ledger wrote them.

A body is zstd over frames that follow one another, in seq order and without gaps. A frame is, little-endian:

    u8  topic       index into TOPICS
    u8  type        index into TYPES
    u16 partition   of the topic, by murmur2 of the key
    u16 length of the traceparent (0: none), u16 number of further headers
    u32 key length, u32 value length (2**32−1: null)
    traceparent, key, further headers (u32 length, name, u32 length or 2**32−1 for null, value), value

Where there are 2**16−1 further headers or more, that number is 2**16−1 and a u32 before them says how many.

Further headers are only a dead letter's own and its dlq-… ones. epoch, shard and seq follow from the row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import zstandard

TOPICS = ("balances", "entries", "decisions", "outcomes", "dead-letters")
TYPES = (
    "balance.changed.v1",
    "entry.recorded.v1",
    "subledger.restated.v1",
    "authorization.decided.v1",
    "authorization.changed.v1",
    "event.rejected.v1",
    "event.parked.v1",
    "command.applied.v1",
    "dead.letter",
)
DEAD_LETTER = TYPES.index("dead.letter")
TOPIC_INDEX = {name: index for index, name in enumerate(TOPICS)}
TYPE_INDEX = {name: index for index, name in enumerate(TYPES)}

Header = tuple[str, bytes | None]

_FIXED = struct.Struct("<BBHHHII")
_U32 = struct.Struct("<I")
_NULL = 2**32 - 1
_MANY = 2**16 - 1


class OutboxRow(NamedTuple):
    """One row of the table outbox, without its shard."""

    seq_first: int
    seq_last: int
    epoch: int
    recorded_at: datetime
    head_hash: bytes
    body: bytes


class Output(NamedTuple):
    """One output as it goes to Kafka; its seq is that of the row's first plus its place."""

    topic: int
    type: int
    partition: int
    key: bytes | None
    traceparent: bytes | None
    headers: Sequence[Header]
    value: bytes | None


def frame(output: Output) -> bytes:
    """One output's frame."""
    topic, kind, partition, key, traceparent, headers, value = output
    fixed = _FIXED.pack(
        topic,
        kind,
        partition,
        len(traceparent) if traceparent else 0,
        min(len(headers), _MANY),
        _NULL if key is None else len(key),
        _NULL if value is None else len(value),
    )
    parts = [fixed, traceparent or b"", key or b""]
    if len(headers) >= _MANY:
        parts.append(_U32.pack(len(headers)))
    for name, content in headers:
        parts += (_sized(name.encode()), _sized(content))
    parts.append(value or b"")
    return b"".join(parts)


def frame_plain(topic: int, kind: int, partition: int, key: bytes, traceparent: bytes, value: bytes) -> bytes:
    """The same frame as `frame` makes of an output without further headers; an empty traceparent is none."""
    return _FIXED.pack(topic, kind, partition, len(traceparent), 0, len(key), len(value)) + traceparent + key + value


def _sized(content: bytes | None) -> bytes:
    return _U32.pack(_NULL) if content is None else _U32.pack(len(content)) + content


def pack(frames: Sequence[bytes]) -> bytes:
    """The body of an outbox row."""
    return zstandard.ZstdCompressor(level=1).compress(b"".join(frames))


def unpack(body: bytes) -> Iterator[Output]:
    """The outputs of an outbox row, in seq order."""
    data = zstandard.ZstdDecompressor().decompress(body)
    position, end = 0, len(data)
    unpack_fixed = _FIXED.unpack_from
    while position < end:
        topic, kind, partition, trace_length, header_count, key_length, value_length = unpack_fixed(data, position)
        position += _FIXED.size
        traceparent = key = value = None
        if trace_length:
            traceparent = data[position : position + trace_length]
            position += trace_length
        if key_length != _NULL:
            key = data[position : position + key_length]
            position += key_length
        headers: Sequence[Header] = ()
        if header_count:
            headers, position = _unpack_headers(data, position, header_count)
        if value_length != _NULL:
            value = data[position : position + value_length]
            position += value_length
        yield Output(topic, kind, partition, key, traceparent, headers, value)


def _unpack_headers(data: bytes, position: int, count: int) -> tuple[list[Header], int]:
    headers: list[Header] = []
    if count == _MANY:
        (count,) = _U32.unpack_from(data, position)
        position += 4
    for _ in range(count):
        name, position = _unpack_sized(data, position)
        content, position = _unpack_sized(data, position)
        headers.append(((name or b"").decode(), content))
    return headers, position


def _unpack_sized(data: bytes, position: int) -> tuple[bytes | None, int]:
    (length,) = _U32.unpack_from(data, position)
    position += 4
    if length == _NULL:
        return None, position
    return data[position : position + length], position + length
