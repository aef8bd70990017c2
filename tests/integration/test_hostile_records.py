"""Records that somebody made in order to do harm: each ends once, and the next is read."""

from __future__ import annotations

import pytest

from infra.records import DeadLetter, OffsetSwap
from tests.coherence import assert_coherent
from tests.fixtures.desk import TOPIC_ID, Desk, envelope, event_of, payment, record_of, refund
from tests.fixtures.ledger import Raw, RunningLedger


async def coherent(desk: Desk) -> None:
    async with desk.pool.acquire() as connection:
        await assert_coherent(connection)


@pytest.mark.parametrize("headers", [65_534, 65_535, 70_000])
async def test_a_dead_letter_comes_with_its_headers_however_many(lone_desk: Desk, headers: int) -> None:
    letter = record_of(payment("p1"))
    letter.headers = [("", b"")] * (headers - 7)
    moves = OffsetSwap("ledger.payments", TOPIC_ID, 0, None, 2)
    result = await lone_desk.swap([payment("p2")], moves, [DeadLetter(letter, "malformed", "no event")])
    assert (result.applied, result.dead_letters) == (1, 1)
    await coherent(lone_desk)


async def test_a_record_with_more_headers_than_16_bits_count_comes_back_and_the_next_is_read(
    running_ledger: RunningLedger,
) -> None:
    ledger = running_ledger
    await ledger.publish_raw([Raw("payments", b"no event", b"acme", [("", b"")] * 70_000)])
    await ledger.publish(
        ledger.event("payment.captured.v1", {"payment_id": "p1", "amount": 5, "currency": "EUR", "customer_id": "c1"})
    )
    await ledger.wait_until_drained()
    (letter,) = await ledger.outputs("dead-letters")
    assert (letter.value, len(letter.headers)) == (b"no event", 70_000 + 10)
    assert len(await ledger.said("entries")) == 1


def test_the_last_day_that_there_is_cant_be_closed() -> None:
    """A fact would be effective after it, where no time can be written any more."""
    assert event_of(envelope("period.close.v1", through="2199-12-30")).command
    with pytest.raises(AssertionError, match="2199-12-30"):
        event_of(envelope("period.close.v1", through="2199-12-31"))


async def test_cash_may_be_the_very_account_that_disputes_are_held_on(lone_desk: Desk) -> None:
    """It is an asset, and whoever says so must not make `verify` fail for ever."""
    held = "platform:disputes_held"
    opened = {"dispute_id": "d1", "amount": 5, "fees": 2, "currency": "EUR", "customer_id": "c1"}
    await lone_desk.apply(
        envelope("dispute.opened.v1", cash_account=held, **opened),
        envelope("dispute.won.v1", dispute_id="d1", amount=3),
        envelope("dispute.lost.v1", dispute_id="d1"),
        envelope("dispute.reopened.v1", dispute_id="d1", reopening_id="x", amount=9, fees=1),
        payment("p1", cash_account=held),
        refund("r1", payment_id="p1"),
    )
    assert await lone_desk.balances() == {held: 895, "platform:dispute_fees": 3, "customer_balance:c1": -898}
    await coherent(lone_desk)
