"""A record that claims another place than its own in its batch, and what stands behind it."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from infra.kafka import offsets_in_batches
from tests.fixtures.raw_batches import RawRecord, batch_of

PLACE = TopicPartition("t", 0)
CLAIMED = {"far on": [0, 400, 2], "twice": [0, 1, 1], "changed places": [0, 2, 1], "behind its batch": [0, 1, 3]}


def batch(deltas: list[int]) -> bytes:
    return batch_of([RawRecord(b"%d" % number, offset_delta=delta) for number, delta in enumerate(deltas)])


def read(kind: type, deltas: list[int]) -> list[bytes]:
    records = kind(PLACE, MemoryRecords(batch(deltas)), [], 0, None, None, True, READ_COMMITTED)
    return [record.value for record in records]


@pytest.mark.parametrize("claimed", ["far on", "changed places"])
def test_aiokafka_skips_what_stands_behind_a_record_that_claims_a_later_place(claimed: str) -> None:
    assert read(offsets_in_batches.PartitionRecords, CLAIMED[claimed]) == [b"0", b"1"]


@pytest.mark.parametrize("claimed", CLAIMED)
def test_a_batch_with_a_record_out_of_its_place_is_refused(claimed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    offsets_in_batches.refuse_offsets_out_of_place()
    with pytest.raises(CorruptRecordException, match="claims another place"):
        read(fetcher.PartitionRecords, CLAIMED[claimed])


def test_a_batch_in_order_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    offsets_in_batches.refuse_offsets_out_of_place()
    assert read(fetcher.PartitionRecords, [0, 1, 2]) == [b"0", b"1", b"2"]
