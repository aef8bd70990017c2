"""Where a key's records stand: the murmur2 of Java's default partitioner."""

from __future__ import annotations

from functools import cache
from struct import Struct

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_MASK = 0xFFFFFFFF


@cache
def _words(count: int) -> Struct:
    return Struct(f"<{count}I")


def murmur2(key: bytes) -> int:
    """The hash that Java's and aiokafka's clients put records in partitions by, as an unsigned 32-bit number."""
    length = len(key)
    hashed = _SEED ^ length
    for word in _words(length // 4).unpack_from(key):
        word = word * _MIX & _MASK
        word = (word ^ word >> 24) * _MIX & _MASK
        hashed = hashed * _MIX & _MASK ^ word
    if tail := length & 3:
        hashed = (hashed ^ int.from_bytes(key[-tail:], "little")) * _MIX & _MASK
    hashed = (hashed ^ hashed >> 13) * _MIX & _MASK
    return hashed ^ hashed >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
