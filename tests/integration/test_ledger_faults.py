"""What goes wrong in a batch: nothing partial is visible, nothing is lost, and no record stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from infra.postgres import load, save, transaction
from infra.postgres.errors import TransientError
from infra.postgres.save import OffsetMovedError
from infra.records import DeadLetter, OffsetSwap, Origin
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.desk import NOON, TOPIC_ID, Desk, desk_on, envelope, payment, post, record_of, refund

PAID = {"platform:cash": 1_000, "customer_balance:c1": -1_000}


async def coherent(desk: Desk) -> None:
    async with desk.pool.acquire() as connection:
        await assert_coherent(connection)


def swap(expected: int | None, next_offset: int) -> OffsetSwap:
    return OffsetSwap("ledger.payments", TOPIC_ID, 0, expected, next_offset)


# --- memory ---------------------------------------------------------------------------------------------------------


async def test_another_writer_in_between_is_noticed(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as one, desk_on(ledger_settings) as two:
        for number in range(6):
            await (one, two)[number % 2].apply(payment(f"p{number}"))
        assert await one.balances() == {"platform:cash": 6_000, "customer_balance:c1": -6_000}
        await coherent(one)


@pytest.mark.parametrize("point", ["look_first", "save_accounts", "save_journal", "save_outbox", "finish"])
async def test_what_was_decided_is_forgotten_if_it_was_not_committed(
    lone_desk: Desk, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    with monkeypatch.context() as broken:
        broken.setattr(load if point == "look_first" else save, point, _breaks)
        with pytest.raises(TransientError):
            await desk.swap([payment("p1"), payment("p2", customer_id="c2")], swap(None, 2))
    assert await desk.balances() == PAID
    await desk.swap([payment("p1"), payment("p2", customer_id="c2")], swap(None, 2))
    assert await desk.balances() == {
        "platform:cash": 3_000,
        "customer_balance:c1": -2_000,
        "customer_balance:c2": -1_000,
    }
    await coherent(desk)


async def _breaks(*_: Any, **__: Any) -> None:
    raise asyncpg.ConnectionDoesNotExistError("gone")


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_commit_whose_answer_is_lost_is_not_believed_and_not_done_twice(
    lone_desk: Desk, monkeypatch: pytest.MonkeyPatch, *, ahead: bool
) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    if not ahead:
        desk.ledger._ahead.in_vain(await desk.shard())
    place, name = (save.Writes, "flush") if ahead else (transaction, "commit")
    with monkeypatch.context() as broken:
        broken.setattr(place, name, _does_and_breaks(getattr(place, name)))
        with pytest.raises(TransientError):
            await desk.apply(payment("p1"))
    assert (await desk.apply(payment("p1"))).duplicates == 1
    await desk.apply(payment("p2"))
    assert (await desk.balances())["platform:cash"] == 3_000
    await coherent(desk)


def _does_and_breaks(commits: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def commits_and_breaks(*arguments: Any) -> None:
        await commits(*arguments)
        raise ConnectionResetError("the answer is lost")

    return commits_and_breaks


async def test_a_connection_that_broke_off_in_the_middle_is_not_given_to_the_next_batch(
    lone_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: list[asyncpg.Connection] = []

    async def break_off(writes: Any, *_arguments: Any, **_more: Any) -> None:
        broken.append(writes.connection._con)
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")

    with monkeypatch.context() as patch:
        patch.setattr(save, "save_outbox", break_off)
        with pytest.raises(TransientError):
            await lone_desk.apply(payment("p1"))
    assert broken[0].is_closed()
    await lone_desk.apply(payment("p1"))
    assert await lone_desk.balances() == PAID


async def test_a_cancelled_batch_leaves_nothing_and_the_next_goes_on(
    lone_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, reached = lone_desk, asyncio.Event()
    await desk.apply(payment("p0"))
    with monkeypatch.context() as slow:
        slow.setattr(save, "save_outbox", _waits_for_ever(reached))
        task = asyncio.create_task(desk.apply(payment("p1")))
        async with asyncio.timeout(10):
            await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await desk.apply(payment("p2"))
    assert (await desk.balances())["platform:cash"] == 2_000
    await coherent(desk)


def _waits_for_ever(reached: asyncio.Event) -> Callable[..., Awaitable[None]]:
    async def wait(*_: Any, **__: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    return wait


async def test_a_killed_connection_is_worth_another_try_and_leaves_nothing(
    lone_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = lone_desk
    killer = await asyncpg.connect(desk.pool._connect_args[0])

    async def kill(writes: Any, *_: Any, **__: Any) -> None:
        await killer.execute("SELECT pg_terminate_backend($1)", writes.connection.get_server_pid())
        await writes.connection.execute("SELECT 1")

    with monkeypatch.context() as broken:
        broken.setattr(save, "save_flows", kill)
        with pytest.raises(TransientError):
            await desk.apply(payment())
    assert await killer.fetchval("SELECT count(*) FROM events") == 0
    assert await killer.fetchval("SELECT count(*) FROM tenants") == 0
    await killer.close()
    await desk.apply(payment())
    assert await desk.balances() == PAID
    await coherent(desk)


# --- the read position ----------------------------------------------------------------------------------------------


async def test_the_read_position_moves_with_its_batch_or_neither_does(lone_desk: Desk) -> None:
    desk = lone_desk
    await desk.swap([payment("p1")], swap(None, 1))
    for stale in (swap(None, 2), swap(0, 2), swap(2, 3)):
        with pytest.raises(OffsetMovedError):
            await desk.swap([payment("p2")], stale)
    assert await desk.balances() == PAID
    await desk.swap([payment("p2")], swap(1, 2))
    await desk.swap([], swap(2, 9))
    assert (await desk.balances())["platform:cash"] == 2_000
    assert await desk.pool.fetchval("SELECT next_offset FROM input_offsets") == 9
    await coherent(desk)


async def test_a_dead_letter_is_written_once_however_often_it_is_read(lone_desk: Desk) -> None:
    desk = lone_desk
    letter = DeadLetter(record_of(payment()), "malformed", "is not JSON")
    assert (await desk.swap([], swap(None, 1), [letter])).dead_letters == 1
    assert (await desk.swap([payment()], None, [letter])).dead_letters == 0
    assert await desk.count("dead_letters") == 1
    await coherent(desk)


# --- poison ---------------------------------------------------------------------------------------------------------


def _carries(desk: Desk, document: dict[str, Any], **slips: Any) -> Any:
    """An event whose command has what validation would have refused."""
    event = desk.event(document)
    for name, value in slips.items():
        setattr(event.command, name, value)
    return event


POISONS: list[Callable[[Desk], Any]] = [
    lambda desk: _carries(desk, payment("bad"), description="a\x00b"),
    lambda desk: _carries(desk, payment("bad"), description="\ud800"),
    lambda desk: _carries(desk, payment("bad"), payment_id="a\x00b"),
    lambda desk: _carries(desk, payment("bad"), amount="12"),
    lambda desk: _carries(desk, refund("bad"), customer_id="\x00"),
    lambda desk: _carries(desk, payment("bad"), provider=5),
    lambda desk: replace(desk.event(payment("bad")), type="\x00"),
    lambda desk: replace(desk.event(payment("bad")), carried=Origin(b"\xff", record_of(payment()))),
]


@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("number", range(len(POISONS)))
async def test_one_record_that_slips_through_becomes_a_dead_letter_and_all_others_are_applied(
    desk: Desk, number: int, place: int
) -> None:
    events = [desk.event(payment(f"p{n}", customer_id=f"c{n % 3}")) for n in range(19)]
    events.insert(place, POISONS[number](desk))
    shard = await desk.shard()
    position = OffsetSwap(f"ledger{desk.suffix}", TOPIC_ID, 0, None, 20)
    result = await desk.ledger.apply(events, shard=shard, offsets=position)
    assert (result.applied, result.dead_letters, result.unstorable) == (19, 1, [])
    assert (await desk.balances())["platform:cash"] == 19_000
    letter = await desk.pool.fetchrow("SELECT * FROM dead_letters ORDER BY recorded_at, seq DESC LIMIT 1")
    assert letter["code"] == "unstorable"
    assert await desk.pool.fetchval("SELECT next_offset FROM input_offsets WHERE topic = $1", position.topic) == 20
    await coherent(desk)


async def test_an_unstorable_record_without_a_read_position_is_handed_back(desk: Desk) -> None:
    poison = POISONS[0](desk)
    result = await desk.ledger.apply([poison, desk.event(payment())], shard=await desk.shard())
    assert [letter.record for letter in result.unstorable] == [poison.carried.record]
    assert await desk.balances() == PAID


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_four_ledgers_on_the_same_shards_neither_deadlock_nor_lose(ledger_settings: Settings) -> None:
    tenants = [f"t{number}" for number in range(6)]

    async def work(desk: Desk, worker: int) -> None:
        for step in range(12):
            batch = [
                payment(f"p{worker}-{step}-{n}", tenant=tenants[(n + worker) % 6], customer_id=f"c{n % 4}", fees=3)
                for n in range(24)
            ]
            batch += [payment(f"shared-{step}", tenant=tenants[step % 6], id=f"w{worker}-{step}")]
            await desk.apply(*batch)

    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(desk_on(ledger_settings)) for _ in range(4)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(work(desk, number) for number, desk in enumerate(desks)))
        total = sum([(await desks[0].balances(tenant)).get("platform:cash", 0) for tenant in tenants])
        assert total == 1_000 * (4 * 12 * 24 + 12)
        await coherent(desks[0])


# --- what the database itself refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["events", "entries", "postings", "dead_letters"])
async def test_a_worker_cannot_change_the_journal(desk: Desk, table: str) -> None:
    await desk.apply(payment())
    for statement in (f"UPDATE {table} SET shard = shard", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await desk.pool.execute(statement)


# --- the ends of 64 bits --------------------------------------------------------------------------------------------

MOST = 2**63 - 1


async def test_a_balance_goes_to_the_last_number_of_64_bits_and_not_over(desk: Desk) -> None:
    await desk.apply(payment("p1", MOST), payment("p2", 1, customer_id="c2"), payment("p3", 1))
    assert await desk.codes() == ["amount_out_of_range"] * 2
    assert await desk.balances() == {"platform:cash": MOST, "customer_balance:c1": -MOST}
    await desk.apply(refund(amount=MOST, payment_id="p1"), payment("p2", 1, customer_id="c2"))
    assert await desk.balances() == {"platform:cash": 1, "customer_balance:c2": -1}
    await coherent(desk)


@pytest.mark.parametrize("together", [True, False])
async def test_what_a_day_adds_to_a_balance_may_leave_64_bits(desk: Desk, together: bool) -> None:
    await desk.apply(refund("r1", MOST, time=NOON - timedelta(days=2)))
    events = [payment("p1", MOST), payment("p2", MOST)]
    for batch in [events] if together else [[event] for event in events]:
        await desk.apply(*batch)
    assert await desk.balances() == {"platform:cash": MOST, "customer_balance:c1": -MOST}
    sums = await desk.pool.fetch(
        "SELECT change FROM balance_days JOIN accounts USING (shard, account_id) WHERE tenant_id = $1",
        f"acme{desk.suffix}",
    )
    assert sorted(int(row["change"]) for row in sums) == [-2 * MOST, -MOST, MOST, 2 * MOST]
    await coherent(desk)


async def test_one_leg_may_not_move_a_balance_by_more_than_64_bits(desk: Desk) -> None:
    await desk.apply(
        envelope("account.create.v1", name="a", type="asset"), envelope("account.create.v1", name="b", type="asset")
    )
    await desk.apply(post(("a", -MOST), ("b", MOST)))
    await desk.apply(post(("a", MOST), ("a", MOST), ("b", -MOST), ("b", -MOST)))
    assert (await desk.codes())[-1] == "amount_out_of_range"
    assert await desk.balances() == {"a": -MOST, "b": MOST}
    await coherent(desk)
