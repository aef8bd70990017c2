"""Two workers that both think a partition is theirs, cut off at any moment, and the clock beside them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from infra.devstack import RunningStack
from infra.postgres.errors import TransientError
from infra.postgres.save import OffsetMovedError
from infra.records import OffsetSwap
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.database import database
from tests.fixtures.desk import TOPIC_ID, Desk, Envelope, again, desk_on, envelope, payment, post, refund

TOPIC = "ledger.payments"


def history(chance: random.Random, length: int) -> list[Envelope]:
    """Payments, what follows them (often before them), requests, and much of it twice."""
    told: list[Envelope] = [
        envelope("account.create.v1", name="a", type="asset", floor=0),
        envelope("account.create.v1", name="b", type="asset"),
    ]
    for _ in range(length):
        number = chance.randrange(1, 1 + length // 6)
        told.append(
            chance.choice(
                (
                    payment(f"p{number}", amount=100 * number),
                    payment(f"p{number}", amount=7, capture_id="again"),
                    refund(f"r{number}", amount=60, payment_id=f"p{number}"),
                    refund(f"s{number}", amount=60 * number, payment_id=f"p{number}"),
                    envelope("refund.failed.v1", refund_id=f"r{number}"),
                    envelope("dispute.won.v1", dispute_id=f"d{number}", outcome_id=f"o{chance.randrange(2)}", amount=2),
                    envelope(
                        "dispute.opened.v1",
                        dispute_id=f"d{number}",
                        payment_id=f"p{number}",
                        customer_id="c1",
                        currency="EUR",
                        amount=3,
                    ),
                    post(("a", chance.randrange(-9, 10) or 1), ("b", 0), key=f"k{number}"),
                    again(chance.choice(told)),
                    chance.choice(told),
                )
            )
        )
        if told[-1]["type"] == "entry.post.v1":
            legs = told[-1]["data"]["postings"]
            legs[1]["amount"] = -legs[0]["amount"]
    return told


async def read_on(desk: Desk, told: list[Envelope], chance: random.Random) -> None:
    """Read the partition to its end, as a worker that is stopped and started again does."""
    events = [desk.event(document) for document in told]
    while True:
        cursor = await desk.pool.fetchval("SELECT next_offset FROM input_offsets")
        while (cursor or 0) < len(events):
            end = min(len(events), (cursor or 0) + chance.randrange(1, 30))
            swap = OffsetSwap(TOPIC, TOPIC_ID, 0, cursor, end)
            try:
                async with asyncio.timeout(chance.choice((0.002, 0.005, 0.01, 0.02, 5))):
                    await desk.ledger.apply(events[cursor or 0 : end], shard=0, offsets=swap)
            except (TimeoutError, TransientError):
                # Whether it was committed isn't known: the same again, from the same position.
                continue
            except OffsetMovedError:
                break
            cursor = end
        else:
            return


async def tick(desk: Desk, chance: random.Random) -> None:
    while True:
        with suppress(TimeoutError, TransientError):
            # asyncio.wait_for() of Python 3.11 may swallow the cancellation that ends this.
            async with asyncio.timeout(chance.choice((0.002, 5))):
                await desk.ledger.resume_arrived(0)
            async with asyncio.timeout(chance.choice((0.002, 5))):
                await desk.ledger.expire_parked(0)


@pytest.fixture
async def another_ledger(stack: RunningStack, shards: int) -> AsyncIterator[Settings]:
    """The settings of a second ledger, to compare with."""
    async with database(stack, shards) as url:
        yield replace(Settings(), database_url=url, shards=shards)


@pytest.mark.shards(1)
@pytest.mark.parametrize("seed", range(4))
async def test_workers_that_are_cut_off_and_fight_over_a_partition_leave_the_books_that_one_would(
    ledger_settings: Settings, another_ledger: Settings, seed: int
) -> None:
    told = history(random.Random(seed), 300)
    async with desk_on(another_ledger) as alone:
        await alone.apply(*told)
        wanted = await alone.balances(), sorted(await alone.outcomes())
        kinds = [entry["kind"] for entry in await alone.entries()]
    async with desk_on(ledger_settings) as one, desk_on(ledger_settings) as two, desk_on(ledger_settings) as clock:
        ticking = asyncio.create_task(tick(clock, random.Random(-seed)))
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(
                    *(read_on(desk, told, random.Random(f"{seed} {desk is one}")) for desk in (one, two))
                )
        finally:
            ticking.cancel()
            await asyncio.wait({ticking})
        assert (await one.balances(), sorted(await one.outcomes())) == wanted
        assert [entry["kind"] for entry in await one.entries()] == kinds
        async with one.pool.acquire() as connection:
            await assert_coherent(connection)
