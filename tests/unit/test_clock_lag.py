"""Nothing expires while input lags by more than a minute: how that is told."""

from __future__ import annotations

from uuid import UUID

import pytest
from aiokafka import TopicPartition

from consumers.clock import InputLag, Standing, Standings

PLACE = TopicPartition("ledger.payments", 0)
OTHER = TopicPartition("ledger.refunds", 1)
TOPIC_ID = UUID(int=7)


class Desk:
    """A broker, a table of positions and a time, all set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.standings: Standings = {PLACE: Standing(TOPIC_ID, 0, 0)}
        self.read: dict[TopicPartition, int] = {}
        self.lag = InputLag(self, self.look, lambda: self.now)  # type: ignore[arg-type]

    async def look(self) -> Standings:
        return self.standings

    async def fetch(self, _statement: str) -> list[tuple[str, UUID, int, int]]:
        return [(place.topic, TOPIC_ID, place.partition, offset) for place, offset in self.read.items()]

    async def is_short(self, *, after: float = 0.0) -> bool:
        self.now += after
        await self.lag.measure()
        return self.lag.is_short()


async def test_an_empty_topic_does_not_lag() -> None:
    assert await Desk().is_short()


async def test_a_backlog_at_the_start_is_taken_for_long() -> None:
    desk = Desk()
    desk.standings[PLACE] = Standing(TOPIC_ID, 0, 5)
    assert not await desk.is_short()
    desk.read[PLACE] = 5
    assert await desk.is_short(after=1)


async def test_what_was_read_up_to_a_minute_ago_is_short() -> None:
    desk = Desk()
    assert await desk.is_short()
    desk.standings[PLACE] = Standing(TOPIC_ID, 0, 5)
    assert await desk.is_short(after=1)
    assert await desk.is_short(after=58)
    assert not await desk.is_short(after=3)


async def test_a_reader_that_keeps_up_never_lags_though_it_never_reaches_the_end() -> None:
    desk = Desk()
    assert await desk.is_short()
    for minute in range(1, 20):
        desk.standings[PLACE] = Standing(TOPIC_ID, 0, 100 * minute)
        desk.read[PLACE] = 100 * (minute - 1)
        assert await desk.is_short(after=59)


async def test_one_partition_that_lags_is_enough() -> None:
    desk = Desk()
    desk.standings[OTHER] = Standing(TOPIC_ID, 0, 1)
    assert not await desk.is_short()


async def test_records_deleted_before_the_first_was_read_are_no_lag() -> None:
    desk = Desk()
    desk.standings[PLACE] = Standing(TOPIC_ID, 40, 40)
    assert await desk.is_short()


async def test_a_position_in_a_topic_that_was_made_again_says_nothing_of_the_new_one() -> None:
    desk = Desk()
    desk.read[PLACE] = 100
    desk.standings[PLACE] = Standing(UUID(int=8), 0, 5)
    assert not await desk.is_short()


async def test_an_old_measurement_says_nothing() -> None:
    desk = Desk()
    assert await desk.is_short()
    desk.now += 11
    assert not desk.lag.is_short()


async def test_a_broker_that_can_not_be_asked_leaves_nothing_to_expire() -> None:
    desk = Desk()

    async def away() -> Standings:
        raise OSError("away")

    lag = InputLag(desk, away, lambda: desk.now)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="away"):
        await lag.measure()
    assert not lag.is_short()
