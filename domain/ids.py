"""Ids are functions of where a thing was made: ordered in time, kind to indexes, the same in a rebuild.

A UUID of version 8: epoch (16 bits), shard (16), seq (56) and ordinal (34), in that order around version and variant.
"""

from __future__ import annotations

from typing import NewType
from uuid import UUID

AccountId = NewType("AccountId", UUID)
EntryId = NewType("EntryId", UUID)

_VERSION_8 = 8 << 76
_VARIANT = 2 << 62
_LOW_28 = (1 << 28) - 1
_LOW_12 = (1 << 12) - 1


def _id(epoch: int, shard: int, seq: int, ordinal: int) -> UUID:
    return UUID(
        int=(epoch << 112)
        | (shard << 96)
        | (seq >> 40 << 80)
        | _VERSION_8
        | ((seq >> 28 & _LOW_12) << 64)
        | _VARIANT
        | ((seq & _LOW_28) << 34)
        | ordinal
    )


def entry_id(epoch: int, shard: int, seq: int) -> EntryId:
    """The id of the entry whose `entry.recorded` has this seq."""
    return EntryId(_id(epoch, shard, seq, 0))


def account_id(epoch: int, shard: int, seq: int, ordinal: int) -> AccountId:
    """The id of the `ordinal`th account (from 1) that the event at this seq made."""
    return AccountId(_id(epoch, shard, seq, ordinal))


def place_of(uuid: UUID) -> tuple[int, int, int]:
    """Where an id of ours was made: (epoch, shard, seq). Any other UUID gives a place where nothing is."""
    number = uuid.int
    high = number >> 80 & 0xFFFF
    middle = number >> 64 & _LOW_12
    low = number >> 34 & _LOW_28
    return number >> 112, number >> 96 & 0xFFFF, high << 40 | middle << 28 | low
