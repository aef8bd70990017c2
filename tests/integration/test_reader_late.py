"""What comes while a batch of card payments waits for its shard is applied with it, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition

from domain.events import Event
from infra.kafka.batches import Prepared
from infra.kafka.partitioner import partition_of
from infra.kafka.reader import PartitionReader
from infra.ledger import Ledger
from infra.patience import Outage
from infra.records import DeadLetter, InputRecord
from infra.resolvers.resolving import Resolvers
from infra.results import BatchResult
from infra.settings import Settings
from infra.turns import EVENTS_LEAST
from tests.fixtures.desk import TOPIC_ID, Desk, Envelope, desk_on, payment

PARTITION = TopicPartition("ledger.authorizations", 0)
OTHER_SHARD = 99


class EmptyTopic:
    """As much of a consumer as a reader asks for its position."""

    def pause(self, *_: TopicPartition) -> None: ...

    def resume(self, *_: TopicPartition) -> None: ...

    def seek(self, *_: Any) -> None: ...

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)


class Read:
    """A reader of an empty partition, what it is offered, and what became of it."""

    def __init__(self, desk: Desk, home: int, *, urgent: bool, rows_max: int) -> None:
        self.result = BatchResult()
        self._desk = desk
        self._news = asyncio.Event()
        self._offset = 0
        self.reader = PartitionReader(
            partition=PARTITION,
            consumer=EmptyTopic(),
            ledger=desk.ledger,
            pool=desk.pool,
            topic_id_of=self._topic_id,
            home_shard=home,
            applied=self._applied,
            outage=Outage(),
            rows_max=rows_max,
            urgent=urgent,
        )

    def _applied(self, result: BatchResult) -> None:
        self.result.add(result)
        self._news.set()

    async def _topic_id(self, _: str) -> Any:
        return TOPIC_ID

    async def offer(self, *documents: Envelope | None) -> None:
        """A batch of these at the next offsets; None is a record that is no event."""
        first = self._offset
        events: list[Event] = []
        letters: list[DeadLetter] = []
        for document in documents:
            if document is None:
                record = InputRecord(PARTITION.topic, TOPIC_ID, 0, self._offset, 0, None, b"{", ())
                letters.append(DeadLetter(record, "malformed", "no JSON"))
            else:
                events.append(self._desk.event(document))
            self._offset += 1
        await self.reader.offer(Prepared(self.reader.generation, first, self._offset, events, letters))

    async def until_read(self) -> None:
        await self._until(lambda: self.reader.cursor == self._offset)

    async def until_applied(self, events: int) -> None:
        await self._until(lambda: self.result.applied >= events)

    async def _until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                self._news.clear()
                await self._news.wait()

    async def batches(self) -> list[int]:
        """How many outputs went out with each batch, but the first one."""
        rows = await self._desk.pool.fetch("SELECT seq_last - seq_first + 1 AS count FROM outbox ORDER BY seq_first")
        return [row["count"] for row in rows][1:]


@asynccontextmanager
async def reading(desk: Desk, *, urgent: bool = True, rows_max: int = 100) -> AsyncIterator[Read]:
    """A reader that has read a first payment."""
    read = Read(desk, await desk.shard(), urgent=urgent, rows_max=rows_max)
    read.reader.start()
    try:
        async with asyncio.timeout(20):
            await read.reader.reading.wait()
        await read.offer(payment("p0"))
        await read.until_read()
        yield read
    finally:
        await read.reader.leave(5.0)


@asynccontextmanager
async def shard_taken(desk: Desk) -> AsyncIterator[None]:
    """Somebody else has the shard's turn in this process for the block."""
    async with desk.ledger._turns.take(await desk.shard()):
        yield


async def settle() -> None:
    """Let the reader go as far as it can."""
    for _ in range(50):
        await asyncio.sleep(0.001)


async def offer_while_it_waits(read: Read, *batches: Sequence[Envelope | None]) -> None:
    for batch in batches:
        await read.offer(*batch)
        await settle()


def outputs_of(payments: int, letters: int = 0) -> int:
    """A payment makes an entry and changes two balances."""
    return payments * 3 + letters


async def test_what_comes_while_a_batch_waits_is_applied_with_it(lone_desk: Desk) -> None:
    async with reading(lone_desk) as read:
        async with shard_taken(lone_desk):
            await offer_while_it_waits(read, [payment("p1")], [payment("p2"), None], [payment("p3")])
        await read.until_read()
        assert await read.batches() == [outputs_of(3, letters=1)]
        assert (read.result.applied, read.result.dead_letters) == (4, 1)
        position = await lone_desk.pool.fetchval("SELECT next_offset FROM input_offsets")
        assert position == read.reader.cursor == 5


async def test_batches_nobody_waits_for_are_applied_as_they_came(lone_desk: Desk) -> None:
    async with reading(lone_desk, urgent=False) as read:
        async with shard_taken(lone_desk):
            await offer_while_it_waits(read, [payment("p1")], [payment("p2")], [payment("p3")])
        await read.until_read()
        assert await read.batches() == [outputs_of(1), outputs_of(2)]


async def test_money_is_read_ahead_by_one_part_only_where_somebody_waits(lone_desk: Desk) -> None:
    async with reading(lone_desk, urgent=False, rows_max=1_000) as read:
        reader, part = read.reader, [payment(f"p{number}") for number in range(1, EVENTS_LEAST + 1)]
        async with shard_taken(lone_desk):
            # In the reader's hands; what comes after it waits in the queue.
            await offer_while_it_waits(read, [payment("p")], part[1:])
            assert reader.has_room
            assert reader.read_ahead_most is None
            async with lone_desk.ledger._turns.take(OTHER_SHARD, urgent=True):
                pass
            assert reader.read_ahead_most == EVENTS_LEAST
            assert reader.has_room
            await read.offer(part[0])
            assert not reader.has_room
        await read.until_read()
        assert reader.has_room
        assert read.result.applied == EVENTS_LEAST + 2


async def test_card_payments_are_read_ahead_as_far_as_there_is_room(lone_desk: Desk) -> None:
    async with reading(lone_desk, urgent=True) as read:
        assert lone_desk.ledger.events_most() is not None
        assert read.reader.read_ahead_most is None


async def test_a_batch_gets_no_more_rows_than_allowed_by_what_comes_late(lone_desk: Desk) -> None:
    async with reading(lone_desk, rows_max=3) as read:
        async with shard_taken(lone_desk):
            await offer_while_it_waits(read, [payment("p1")], [payment("p2"), payment("p3")], [payment("p4")])
        await read.until_read()
        assert await read.batches() == [outputs_of(3), outputs_of(1)]


@pytest.mark.parametrize("shards", [4])
async def test_what_is_of_another_shard_or_of_nobody_known_waits_for_its_own_turn(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        elsewhere = next(
            name
            for name in map("other{}".format, range(100))
            if partition_of(name.encode(), 4) != partition_of(b"acme", 4)
        )
        await desk.apply(payment("q0", tenant=elsewhere))
        async with reading(desk) as read:
            async with shard_taken(desk):
                await offer_while_it_waits(
                    read, [payment("p1")], [payment("p2")], [payment("q1", tenant=elsewhere)], [payment("p3")]
                )
            await read.until_read()
            rows = await desk.pool.fetch("SELECT shard, payment_id FROM payments ORDER BY payment_id")
            at_home = await desk.shard()
            assert [(row["shard"] == at_home, row["payment_id"]) for row in rows] == [
                (True, "p0"),
                (True, "p1"),
                (True, "p2"),
                (True, "p3"),
                (False, "q0"),
                (False, "q1"),
            ]
            assert read.result.applied == 5


async def test_nothing_late_is_taken_where_more_than_the_data_resolves(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        resolvers = Resolvers(desk.ledger._resolvers._read_credit, categories="none")
        desk.ledger = Ledger(desk.pool, desk.rules, desk.ledger._read_command, resolvers=resolvers)
        async with reading(desk) as read:
            async with shard_taken(desk):
                await offer_while_it_waits(read, [payment("p1")], [payment("p2")])
            await read.until_read()
            assert await read.batches() == [outputs_of(1), outputs_of(1)]


async def test_what_came_late_is_neither_lost_nor_doubled_when_its_batch_is_tried_again(lone_desk: Desk) -> None:
    async with reading(lone_desk) as read:
        async with shard_taken(lone_desk):
            await offer_while_it_waits(read, [payment("p1")], [payment("p2")])
            # The first try finds its connections gone.
            await lone_desk.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await read.until_read()
        assert await read.batches() == [outputs_of(2)]
        assert await lone_desk.count("payments") == 3


async def test_a_batch_of_before_reading_began_anew_gets_nothing_more(lone_desk: Desk) -> None:
    async with reading(lone_desk) as read:
        async with shard_taken(lone_desk):
            await read.offer(payment("p1"))
            await settle()
            generation = read.reader.generation
            read.reader.begin_again()
            # As one that had waited for room since before.
            stale = Prepared(generation, 2, 3, [lone_desk.event(payment("p2"))], [])
            await read.reader._queue.put(stale)
            before = read.result.applied
        await read.until_applied(before + 1)
        await settle()
        assert await read.batches() == [outputs_of(1)]
        assert await lone_desk.pool.fetchval("SELECT next_offset FROM input_offsets") == 2


async def test_batches_that_take_what_comes_late_do_not_measure_how_long_an_event_takes(lone_desk: Desk) -> None:
    async with reading(lone_desk) as read:
        turns = lone_desk.ledger._turns
        async with shard_taken(lone_desk):
            await offer_while_it_waits(read, [payment(f"a{number}") for number in range(20)], [payment("p1")])
        await read.until_read()
        assert turns._seconds_an_event == 0.0
        await lone_desk.apply(*(payment(f"b{number}") for number in range(20)))
        assert turns._seconds_an_event > 0.0
