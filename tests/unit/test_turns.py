"""Whose turn it is on a shard."""

from __future__ import annotations

import asyncio

from infra.turns import EVENTS_LEAST, SIDE_BY_SIDE, URGENT_IN_A_ROW, WANTED_SECONDS, Turns

TURN_SECONDS = 0.02


class Clock:
    """A clock that goes as it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def order_of(turns: Turns, asked: str) -> str:
    """In which order these get the shard, that ask for it in this order while somebody has it; capitals are urgent."""
    had: list[str] = []

    async def one(name: str) -> None:
        async with turns.take(0, urgent=name.isupper()):
            had.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group, turns.take(0):
        for name in asked:
            group.create_task(one(name))
        await asyncio.sleep(0)
    return "".join(had)


async def test_what_is_urgent_goes_first_and_the_rest_as_it_came() -> None:
    assert await order_of(Turns(TURN_SECONDS), "abAcB") == "ABabc"


async def test_what_waits_has_a_turn_after_so_many_urgent_ones() -> None:
    assert URGENT_IN_A_ROW == 4
    assert await order_of(Turns(TURN_SECONDS), "abABCDEFGHIJ") == "ABCDaEFGHbIJ"


async def test_shards_do_not_wait_for_each_other() -> None:
    turns = Turns(TURN_SECONDS)
    async with asyncio.timeout(5), turns.take(0), turns.take(1):
        pass


async def test_a_turn_that_is_given_up_in_the_moment_it_is_due_goes_to_the_next() -> None:
    turns, had = Turns(TURN_SECONDS), asyncio.Event()

    async def wait() -> None:
        async with turns.take(0):
            had.set()

    async with asyncio.timeout(5):
        async with turns.take(0):
            first, second = (asyncio.create_task(wait()) for _ in range(2))
            await asyncio.sleep(0)
            # Cancelled, but it hasn't been told so yet when the turn is handed on.
            first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        assert had.is_set()
        async with turns.take(0):
            pass


async def test_who_gives_up_waiting_neither_keeps_the_turn_nor_loses_it() -> None:
    turns = Turns(TURN_SECONDS)

    async def wait() -> None:
        async with turns.take(0):
            pass

    async with asyncio.timeout(5):
        async with turns.take(0):
            waiting = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
        # The turn was just given to the first: who is cancelled with it in hand passes it on.
        waiting[0].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not waiting[2].cancelled()
        async with turns.take(0):
            pass


async def test_batches_are_kept_short_only_as_long_as_decisions_are_wanted() -> None:
    clock = Clock()
    turns = Turns(TURN_SECONDS, clock)
    assert turns.events_most() is None
    async with turns.take(0, urgent=True):
        pass
    assert turns.events_most() == EVENTS_LEAST
    clock.now += WANTED_SECONDS
    assert turns.events_most() is None


async def test_how_short_follows_how_long_an_event_takes() -> None:
    clock = Clock()
    turns = Turns(TURN_SECONDS, clock)
    for _ in range(50):
        async with turns.take(0, events=100):
            clock.now += 100 * TURN_SECONDS / 250
    async with turns.take(0, urgent=True):
        pass
    most = turns.events_most()
    assert most is not None
    assert 240 <= most <= 260


async def most_at_once(turns: Turns, *, urgent: bool = False) -> int:
    """How many of these hold their shards at the same time, where each has a shard of its own."""
    now, most = 0, 0

    async def one(shard: int) -> None:
        nonlocal now, most
        async with turns.take(shard, urgent=urgent):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    async with asyncio.TaskGroup() as group:
        for shard in range(6):
            group.create_task(one(shard))
    return most


async def test_only_few_that_do_not_hurry_go_side_by_side_while_decisions_are_wanted() -> None:
    clock = Clock()
    turns = Turns(TURN_SECONDS, clock)
    assert await most_at_once(turns) == 6
    assert await most_at_once(turns, urgent=True) == 6
    assert await most_at_once(turns) == SIDE_BY_SIDE
    clock.now += WANTED_SECONDS
    assert await most_at_once(turns) == 6


async def test_what_is_urgent_waits_for_none_of_the_rest_on_other_shards() -> None:
    turns = Turns(TURN_SECONDS)
    async with turns.take(9, urgent=True):
        pass
    async with asyncio.timeout(5), turns.take(0), turns.take(1), turns.take(2, urgent=True):
        waiting = asyncio.create_task(most_at_once(turns))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_shard_that_stands_still_keeps_others_from_their_turn_only_once() -> None:
    turns, stuck = Turns(TURN_SECONDS), asyncio.Event()
    async with turns.take(0, urgent=True):
        pass

    async def hold() -> None:
        async with turns.take(0):
            await stuck.wait()

    async with asyncio.timeout(5):
        # As many streams as may go side by side, all on the shard that waits for Postgres.
        holding = [asyncio.create_task(hold()) for _ in range(SIDE_BY_SIDE + 1)]
        await asyncio.sleep(0)
        async with turns.take(1):
            pass
        # Who gives up waiting leaves nothing behind.
        holding[1].cancel()
        await asyncio.sleep(0)
        stuck.set()
        await asyncio.gather(*holding, return_exceptions=True)
        assert [task.cancelled() for task in holding] == [False, True, False]
        assert await most_at_once(turns) == SIDE_BY_SIDE
