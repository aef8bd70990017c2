"""Batches decided before their shard is locked: written whole, and only if nothing has changed since they looked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

import infra.ledger
from infra.ahead import EVENTS_MOST
from infra.ledger import Ledger
from infra.postgres.save import OffsetMovedError
from infra.settings import Settings
from tests.fixtures.cards import OWNER, card_payment
from tests.fixtures.desk import Desk, desk_on, envelope, payment, post, refund
from tests.fixtures.statements import counted
from tests.integration.test_ledger_faults import coherent, swap

AHEAD = "SELECT WITH"
_OWNED = {"owner_type": "employee", "owner_ref": OWNER}
_LINE = {"line_of_credit_id": "l1", "expense_category": "food", "currency": "EUR", "credits_limit": 1_000} | _OWNED
CARD = (
    envelope("expense_category.create.v1", code="food", name="Food", match=[{}]),
    envelope("line_of_credit.create.v1", **_LINE),
    envelope("card.assign.v1", card_id="c1", **_OWNED),
)


@asynccontextmanager
async def meanwhile(does: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[bool]]:
    """Let this happen once, between what a batch reads and what it writes. Tells of each batch whether it was ahead."""
    save_batch, tries = infra.ledger.save_batch, list[bool]()

    async def save(*arguments: Any, ahead: bool = False, **named: Any) -> Any:
        tries.append(ahead)
        if len(tries) == 1:
            await does()
        return await save_batch(*arguments, ahead=ahead, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infra.ledger, "save_batch", save)
        yield tries


# --- how many round trips -------------------------------------------------------------------------------------------


async def test_a_payment_alone_takes_two_round_trips(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        statements = counted(desk)
        await desk.apply(payment("p0"))
        statements.clear()
        await desk.apply(payment("p1"))
        assert " ".join(text.split()[0] for text in statements) == AHEAD


async def test_a_card_payment_alone_takes_two_round_trips(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        statements = counted(desk)
        await desk.apply(*CARD)
        await desk.apply(envelope("authorization.requested.v1", **card_payment("x0")))
        statements.clear()
        result = await desk.apply(envelope("authorization.requested.v1", **card_payment("x1")))
        assert " ".join(text.split()[0] for text in statements) == AHEAD
        assert result.applied == 1
        decided = await desk.pool.fetch("SELECT decision FROM authorizations ORDER BY external_id")
        assert [row["decision"] for row in decided] == ["approved", "approved"]


async def test_an_event_parked_and_resumed_is_decided_ahead(lone_desk: Desk) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    statements = counted(desk)
    assert (await desk.apply(refund("r1", payment_id="p1"))).parked == 1
    assert (await desk.apply(payment("p1"))).applied == 2
    assert not any(text.startswith("BEGIN") for text in statements)
    assert await desk.pool.fetchval("SELECT count(*) FROM parked") == 0
    await coherent(desk)


async def test_a_batch_of_many_is_decided_under_the_lock_at_once(lone_desk: Desk) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    async with meanwhile(nothing) as tries:
        await desk.apply(*(payment(f"many-{number}") for number in range(EVENTS_MOST + 1)))
        await desk.apply(*(payment(f"few-{number}") for number in range(EVENTS_MOST)))
    assert tries == [False, True]
    await coherent(desk)


async def nothing() -> None:
    pass


# --- what changes in between ----------------------------------------------------------------------------------------


async def test_what_another_process_writes_in_between_is_not_overwritten(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as other:
        await desk.apply(payment("p0"))
        async with meanwhile(lambda: other.apply(payment("p1"))) as tries:
            await desk.apply(payment("p2"))
        # Ours ahead, theirs ahead, ours again.
        assert tries == [True, True, False]
        assert await desk.balances() == {"platform:cash": 3_000, "customer_balance:c1": -3_000}
        await coherent(desk)


async def test_the_same_event_in_between_counts_once(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as other:
        await desk.apply(payment("p0"))
        twice = desk.event(payment("p1"))
        async with meanwhile(lambda: other.apply_events([twice])):
            assert (await desk.apply_events([twice])).duplicates == 1
        assert await desk.balances() == {"platform:cash": 2_000, "customer_balance:c1": -2_000}
        await coherent(desk)


async def test_a_key_that_is_taken_after_all_is_found_under_the_lock(lone_desk: Desk) -> None:
    """Even where somebody claimed it and advanced nothing, which nobody does."""
    desk = lone_desk
    await desk.apply(payment("p0"))
    twice = desk.event(payment("p1"))
    claim = (await desk.shard(), twice.natural, twice.fingerprint)

    async def claims() -> None:
        await desk.pool.execute("INSERT INTO idempotency_keys VALUES ($1, encode($2, 'hex')::uuid, 1, $3, 1)", *claim)

    async with meanwhile(claims) as tries:
        assert (await desk.apply_events([twice])).duplicates == 1
    assert tries == [True, False]


async def test_what_nobody_checked_is_not_kept_in_memory(ledger_settings: Settings) -> None:
    """What was read may be of two moments, and after a failover the shard may stand at the first of them again."""
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as other:
        await desk.apply(payment("p0"))
        shard = await desk.shard()
        async with meanwhile(lambda: other.apply(payment("p1"))) as tries:
            assert (await desk.apply(payment("p0"))).duplicates == 1
        assert tries == [True, True]
        assert shard not in desk.ledger._memories
        await desk.swap([payment("p0")], swap(None, 5))
        await desk.swap([payment("p0")], swap(5, 6))
        assert shard in desk.ledger._memories


async def test_a_recovery_in_between_is_noticed(lone_desk: Desk) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    async with meanwhile(lambda: desk.pool.execute("UPDATE shards SET epoch = epoch + 1")) as tries:
        await desk.apply(payment("p1"))
    assert tries == [True, False]
    assert {row["epoch"] for row in await desk.pool.fetch("SELECT epoch FROM outbox")} == {1, 2}


async def test_a_shard_that_another_process_writes_to_is_locked_first_for_a_while(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as other:
        await desk.apply(payment("p0"))
        async with meanwhile(lambda: other.apply(payment("p1"))) as tries:
            await desk.apply(payment("p2"))
            await desk.apply(payment("p3"))
            desk.ledger._ahead._locked_until.clear()
            await desk.apply(payment("p4"))
        assert tries == [True, True, False, False, True]


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"


@asynccontextmanager
async def shard_held(settings: Settings, desk: Desk) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Let another one hold the shard and change nothing; gives what waits until somebody waits for it."""
    shard = await desk.shard()
    holder, watcher = [await asyncpg.connect(settings.asyncpg_dsn) for _ in range(2)]

    async def until_waited_for() -> None:
        async with asyncio.timeout(10):
            while not await watcher.fetchval(WAITING):  # noqa: ASYNC110
                await asyncio.sleep(0)

    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM shards WHERE shard = $1 FOR UPDATE", shard)
            yield until_waited_for
    finally:
        await holder.close()
        await watcher.close()


async def test_a_shard_that_somebody_holds_is_waited_for_under_the_lock_alone(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        await desk.apply(payment("p0"))
        async with meanwhile(nothing) as tries:
            async with shard_held(ledger_settings, desk) as until_waited_for:
                waiting = asyncio.create_task(desk.apply(payment("p1")))
                await until_waited_for()
                # The second try has not decided anything yet.
                assert tries == [True]
            assert (await waiting).applied == 1
        assert tries == [True, False]
        await coherent(desk)


async def test_a_request_whose_time_is_over_once_the_shard_is_free_is_declined(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk:
        await desk.apply(*CARD)
        in_time = (desk.now + timedelta(seconds=1)).isoformat()
        async with shard_held(ledger_settings, desk) as until_waited_for:
            request = envelope("authorization.requested.v1", **card_payment("x0"), respond_by=in_time)
            waiting = asyncio.create_task(desk.apply(request))
            await until_waited_for()
            desk.now += timedelta(seconds=4)
        await waiting
        assert await desk.pool.fetchval("SELECT reason FROM authorizations") == "expired_before_decision"


# --- what is read at different times --------------------------------------------------------------------------------


@asynccontextmanager
async def after_the_look(ledger: Ledger, does: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Let this happen once, after a batch's first look and before it loads the rest."""
    load, done = ledger._load, list[bool]()

    async def loads(*arguments: Any) -> None:
        if not done:
            done.append(True)
            await does()
        await load(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_load", loads)
        yield


def account(name: str) -> dict[str, Any]:
    return envelope("account.create.v1", name=name, type="asset")


def update(name: str, **more: Any) -> dict[str, Any]:
    return envelope("account.update.v1", name=name, **more)


async def test_accounts_that_were_never_above_each_other_at_one_time_hang_nothing(
    ledger_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as other:
        await other.apply(account("a"), account("b"), account("c"))
        await other.apply(update("a", parent="b"))
        await desk.apply(update("a", description="in memory"))

        async def turn_over() -> None:
            await other.apply(update("a", parent=None))
            await other.apply(update("b", parent="a"))

        async with after_the_look(desk.ledger, turn_over):
            result = await desk.apply(update("b", description="loaded now"), update("c", parent="a"))
        assert result.applied == 2
        await coherent(desk)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_what_nobody_checked_is_not_lent_after_a_failover(ledger_settings: Settings) -> None:
    """Duplicates alone write nothing; the standby that took over lacks what was committed while they were read."""
    async with desk_on(ledger_settings) as first, desk_on(ledger_settings) as desk:
        owner = await asyncpg.connect(ledger_settings.asyncpg_dsn)
        try:
            twice, lost = first.event(payment("p0")), first.event(payment("p1"))
            await first.apply_events([twice])
            tables = [row[0] for row in await owner.fetch(TABLES)]
            for table in tables:
                await owner.execute(f"CREATE TABLE was_{table} AS TABLE {table}")
            async with after_the_look(desk.ledger, lambda: first.apply_events([lost])):
                assert (await desk.apply_events([twice])).duplicates == 1
            async with owner.transaction():
                await owner.execute("SET LOCAL session_replication_role = replica")
                for table in tables:
                    await owner.execute(f"DELETE FROM {table}")
                    await owner.execute(f"INSERT INTO {table} SELECT * FROM was_{table}")
            for table in tables:
                await owner.execute(f"DROP TABLE was_{table}")
            assert (await desk.apply_events([lost])).applied == 1
            assert await desk.balances() == {"platform:cash": 2_000, "customer_balance:c1": -2_000}
            await coherent(desk)
        finally:
            await owner.close()


TABLES = """
    SELECT relname
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""


# --- the read position ----------------------------------------------------------------------------------------------


async def test_a_partition_that_was_never_read_begins_under_the_lock(lone_desk: Desk) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    async with meanwhile(nothing) as tries:
        await desk.swap([payment("p1")], swap(None, 5))
        await desk.swap([payment("p2")], swap(5, 9))
    assert tries == [False, True]
    assert await desk.pool.fetchval("SELECT next_offset FROM input_offsets") == 9


@pytest.mark.parametrize("empty", [False, True])
async def test_a_reader_that_was_overtaken_writes_nothing(ledger_settings: Settings, *, empty: bool) -> None:
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as successor:
        await desk.swap([payment("p0")], swap(None, 5))
        theirs = payment("p0") if empty else payment("p1")
        async with meanwhile(lambda: successor.swap([payment("p2")], swap(5, 9))):
            with pytest.raises(OffsetMovedError):
                await desk.swap([theirs], swap(5, 6))
        assert await desk.balances() == {"platform:cash": 2_000, "customer_balance:c1": -2_000}
        assert await desk.pool.fetchval("SELECT next_offset FROM input_offsets") == 9
        await coherent(desk)


async def test_a_read_position_that_moved_alone_stops_a_batch_too(lone_desk: Desk) -> None:
    """The shard stands where it stood: duplicates move nothing but the position."""
    desk = lone_desk
    await desk.swap([payment("p0")], swap(None, 5))
    async with meanwhile(lambda: desk.pool.execute("UPDATE input_offsets SET next_offset = 6")):
        with pytest.raises(OffsetMovedError):
            await desk.swap([payment("p1")], swap(5, 9))
    assert await desk.balances() == {"platform:cash": 1_000, "customer_balance:c1": -1_000}
    await coherent(desk)


async def test_a_shard_that_moved_alone_moves_no_read_position_without_its_events(ledger_settings: Settings) -> None:
    async with desk_on(ledger_settings) as desk, desk_on(ledger_settings) as other:
        await desk.swap([payment("p0")], swap(None, 5))
        async with meanwhile(lambda: other.apply(payment("p1"))):
            assert (await desk.swap([payment("p2")], swap(5, 9))).applied == 1
        assert await desk.balances() == {"platform:cash": 3_000, "customer_balance:c1": -3_000}
        assert await desk.pool.fetchval("SELECT next_offset FROM input_offsets") == 9
        await coherent(desk)


async def test_many_rows_of_few_events_are_decided_in_vain_once(lone_desk: Desk) -> None:
    desk = lone_desk
    await desk.apply(*(account(f"a{leg}") for leg in range(20)))
    legs = [(f"a{leg}", 1 if leg % 2 else -1) for leg in range(20)]
    async with meanwhile(nothing) as tries:
        for _ in range(3):
            assert (await desk.apply(*(post(*legs) for _ in range(20)))).applied == 20
    assert tries == [True, False, False, False]
    await coherent(desk)


# --- what doesn't go in one statement -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(payment("p1", tenant="newcomer"), id="a new tenant"),
        pytest.param(envelope("period.close.v1", through="2026-01-31"), id="a closed period"),
        pytest.param(
            envelope("account.update.v1", name="customer_balance:c1", status="frozen"), id="a changed account"
        ),
    ],
)
async def test_what_needs_the_lock_is_written_once_under_it(lone_desk: Desk, document: dict[str, Any]) -> None:
    desk = lone_desk
    await desk.apply(payment("p0"))
    async with meanwhile(nothing) as tries:
        assert (await desk.apply(document)).applied == 1
    assert tries == [True, False]
    assert not desk.ledger._ahead._locked_until
    await coherent(desk)
