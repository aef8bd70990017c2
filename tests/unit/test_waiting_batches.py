"""Batches between the poll and the ledger: joined when they pile up, cut when they must be short."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest

from domain.events import Event
from infra.kafka import batches
from infra.kafka.batches import BatchQueue, Prepared
from infra.records import DeadLetter, InputRecord, Origin


def record(offset: int) -> InputRecord:
    return InputRecord("t", UUID(int=1), 0, offset, 0, None, b"", ())


def batch(first: int, events: str, *, generation: int = 1, size_bytes: int = 0) -> Prepared:
    """A batch of records from an offset on: `e` is an event, `d` a dead letter, `-` the marker of a transaction."""
    places = [(first + number, kind) for number, kind in enumerate(events)]
    # The queue looks at nothing of an event but where it stood.
    made = [cast(Event, _Event(Origin(b"", record(offset)))) for offset, kind in places if kind == "e"]
    letters = [DeadLetter(record(offset), "malformed", "") for offset, kind in places if kind == "d"]
    return Prepared(generation, first, first + len(events), made, letters, size_bytes)


class _Event:
    def __init__(self, carried: Origin) -> None:
        self.carried = carried


async def next_of(queue: BatchQueue) -> Prepared:
    prepared = await queue.get()
    assert prepared is not None
    return prepared


def offsets(prepared: Prepared) -> tuple[list[int], list[int]]:
    events = [cast(Any, event).carried.record.offset for event in prepared.events]
    return events, [letter.record.offset for letter in prepared.letters]


async def test_what_has_piled_up_is_taken_as_one_batch() -> None:
    queue = BatchQueue(10)
    for first in (0, 3, 6):
        await queue.put(batch(first, "ede"))
    joined = await next_of(queue)
    assert (joined.first_offset, joined.next_offset) == (0, 9)
    assert offsets(joined) == ([0, 2, 3, 5, 6, 8], [1, 4, 7])


async def test_no_batch_becomes_larger_than_allowed_by_what_is_joined_to_it() -> None:
    queue = BatchQueue(5)
    await queue.put(batch(0, "eee"))
    await queue.put(batch(3, "eee"))
    assert not queue.has_room
    assert (await next_of(queue)).next_offset == 3
    assert (await next_of(queue)).next_offset == 6


async def test_batches_polled_before_and_after_reading_began_anew_are_kept_apart() -> None:
    queue = BatchQueue(10)
    await queue.put(batch(5, "e", generation=1))
    await queue.put(batch(0, "e", generation=2))
    assert (await next_of(queue)).generation == 1
    assert (await next_of(queue)).generation == 2


async def test_large_records_leave_no_room_whatever_their_number() -> None:
    queue = BatchQueue(1_000)
    await queue.put(batch(0, "e", size_bytes=batches.QUEUED_BYTES_MAX))
    waiting = asyncio.create_task(queue.put(batch(1, "e")))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not queue.has_room
    await queue.get()
    async with asyncio.timeout(5):
        await waiting


async def test_who_waits_for_room_has_it_when_the_queue_is_dropped() -> None:
    queue = BatchQueue(1)
    await queue.put(batch(0, "e"))
    waiting = asyncio.create_task(queue.put(batch(1, "e")))
    await asyncio.sleep(0)
    queue.drop()
    async with asyncio.timeout(5):
        await waiting
        assert (await next_of(queue)).first_offset == 1


async def test_who_waits_for_a_batch_is_told_that_what_there_was_is_dropped() -> None:
    queue = BatchQueue(1)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.drop()
    async with asyncio.timeout(5):
        assert await waiting is None


def test_a_batch_is_cut_before_an_event_and_every_record_is_in_one_part() -> None:
    whole = batch(10, "dede--eed")
    parts = []
    rest: Prepared | None = whole
    while rest is not None:
        part, rest = rest.cut(2)
        parts.append(part)
    assert [offsets(part) for part in parts] == [([11, 13], [10, 12]), ([16, 17], [18])]
    assert [(part.first_offset, part.next_offset) for part in parts] == [(10, 16), (16, 19)]
    assert whole.cut(None) == (whole, None)
    assert whole.cut(4) == (whole, None)


async def test_a_batch_gets_what_follows_it_up_to_the_first_that_does_not_suit() -> None:
    queue = BatchQueue(10)
    first = batch(0, "e")
    for start, events in ((1, "ed"), (3, "e"), (4, "ee"), (6, "e")):
        await queue.put(batch(start, events))
    grown = queue.added_to(first, lambda prepared: len(prepared.events) == 1)
    assert (grown.first_offset, grown.next_offset) == (0, 4)
    assert offsets(grown) == ([0, 1, 3], [2])
    assert (await next_of(queue)).first_offset == 4


async def test_a_batch_gets_nothing_that_was_polled_after_reading_began_anew() -> None:
    queue = BatchQueue(10)
    await queue.put(batch(1, "e", generation=2))
    old = batch(0, "e", generation=1)
    assert queue.added_to(old) is old
    assert (await next_of(queue)).first_offset == 1


async def test_no_batch_that_is_large_already_gets_more() -> None:
    queue = BatchQueue(10)
    await queue.put(batch(1, "e"))
    large = batch(0, "e", size_bytes=batches.QUEUED_BYTES_MAX)
    assert queue.added_to(large) is large
    assert queue.added_to(batch(0, "e", size_bytes=batches.QUEUED_BYTES_MAX - 1)).next_offset == 2


async def test_what_cannot_be_joined_stays_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = BatchQueue(10)
    for first in (1, 2, 3):
        await queue.put(batch(first, "e"))
    joined, joins = batches._joined, list[Prepared]()

    def fail_at_second(one: Prepared, other: Prepared) -> Prepared:
        joins.append(other)
        if len(joins) == 2:
            raise MemoryError
        return joined(one, other)

    monkeypatch.setattr(batches, "_joined", fail_at_second)
    with pytest.raises(MemoryError):
        queue.added_to(batch(0, "e"))
    assert (await next_of(queue)).next_offset == 4
