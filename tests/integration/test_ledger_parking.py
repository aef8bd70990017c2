"""Events that come before what they follow: parked, applied in order, refused in the end, never lost."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from infra.postgres.errors import TransientError
from tests.coherence import assert_coherent
from tests.fixtures.desk import NOON, Desk, Envelope, again, envelope, payment, refund

DAY = timedelta(days=1)


async def coherent(desk: Desk) -> None:
    async with desk.pool.acquire() as connection:
        await assert_coherent(connection)


def failed(refund_id: str = "r1", **more: object) -> Envelope:
    return envelope("refund.failed.v1", refund_id=refund_id, **more)


@pytest.mark.parametrize("together", [True, False])
async def test_a_refund_before_its_payment_is_applied_right_after_it(desk: Desk, together: bool) -> None:
    events = [refund(payment_id="p1", id="e1"), payment(id="e2"), payment("p2", id="e3")]
    for batch in [events] if together else [[event] for event in events]:
        await desk.apply(*batch)
    assert [entry["kind"] for entry in await desk.entries()] == ["payment", "refund", "payment"]
    assert await desk.outcomes() == [("e1", "parked")]
    assert await desk.balances() == {"platform:cash": 1_900, "customer_balance:c1": -1_900}
    await coherent(desk)


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [3, 1], [4], [2, 2]])
async def test_three_levels_come_free_at_once_in_the_order_of_their_parking(desk: Desk, sizes: list[int]) -> None:
    events = [
        failed(id="e1"),
        refund(payment_id="p1", id="e2"),
        envelope("dispute.won.v1", dispute_id="d1", id="e3"),
        envelope(
            "dispute.opened.v1",
            dispute_id="d1",
            payment_id="p1",
            customer_id="c1",
            amount=50,
            currency="EUR",
            id="e4",
        ),
        payment(id="e5"),
    ]
    sizes = [*sizes, 1]
    for size in sizes:
        await desk.apply(*events[:size])
        del events[:size]
    kinds = [entry["kind"] for entry in await desk.entries()]
    assert kinds == ["payment", "refund", "dispute_opened", "refund_failed", "dispute_won"]
    assert await desk.balances() == {"platform:cash": 1_000, "customer_balance:c1": -1_000}
    assert await desk.pool.fetchval("SELECT count(*) FROM parked") == 0
    await coherent(desk)


@pytest.mark.parametrize("together", [True, False])
async def test_a_parked_event_that_is_refused_says_where_its_record_stands_as_its_parking_did(
    desk: Desk, together: bool
) -> None:
    events = [refund(payment_id="p1", amount=2_000, id="e1"), payment()]
    for batch in [events] if together else [[event] for event in events]:
        await desk.apply(*batch)
    told = [output["data"] for output in await desk.outputs() if "event" in output["data"]]
    assert [each["code"] for each in told] == ["payment_not_found", "refund_exceeds_payment"]
    assert told[0]["event"]["offset"] > 0
    assert told[1]["event"] == told[0]["event"]


async def test_what_waits_goes_on_waiting_if_what_it_waits_for_is_refused(desk: Desk) -> None:
    await desk.apply(failed(id="e1"), payment())
    await desk.apply(refund(payment_id="p1", amount=2_000, id="e2"))
    assert await desk.outcomes() == [("e1", "parked"), ("e2", "refund_exceeds_payment")]
    await desk.apply(refund(payment_id="p1"))
    assert [entry["kind"] for entry in await desk.entries()] == ["payment", "refund", "refund_failed"]
    await coherent(desk)


async def test_a_parked_event_sent_again_is_a_duplicate_and_with_other_data_a_conflict(desk: Desk) -> None:
    waits = refund(payment_id="p1", id="e1", key="k")
    await desk.apply(waits)
    assert (await desk.apply(waits, again(waits))).duplicates == 2
    await desk.apply(again(waits, id="e2", amount=7))
    assert await desk.outcomes() == [("e1", "parked"), ("e2", "idempotency_conflict")]
    await desk.apply(payment())
    assert (await desk.apply(waits, again(waits))).duplicates == 2
    assert len(await desk.entries()) == 2


@pytest.mark.parametrize("together", [True, False])
async def test_a_parked_fact_that_ends_refused_gives_its_keys_back_and_keeps_its_delivery(
    desk: Desk, together: bool
) -> None:
    waits = refund(payment_id="p1", customer_id="c2", id="e1", key="k")
    better = refund(payment_id="p1", id="e2", key="k")
    await desk.apply(waits)
    for batch in [[payment(), better]] if together else [[payment()], [better]]:
        await desk.apply(*batch)
    assert await desk.outcomes() == [("e1", "parked"), ("e1", "customer_mismatch")]
    assert (await desk.apply(waits)).duplicates == 1
    assert (await desk.apply(better)).duplicates == 1
    assert [entry["kind"] for entry in await desk.entries()] == ["payment", "refund"]
    await coherent(desk)


async def test_a_thousand_wait_for_one_thing_and_the_next_is_refused(desk: Desk) -> None:
    waits = [refund(f"r{number}", 1, payment_id="p1") for number in range(1_002)]
    await desk.apply(*waits[:600])
    await desk.apply(*waits[600:])
    assert (await desk.codes())[1_000:] == ["too_many_parked"] * 2
    await desk.apply(payment())
    assert await desk.balances() == {}


async def test_patience_ends_in_the_code_of_the_wait_and_frees_the_keys(lone_desk: Desk) -> None:
    desk = lone_desk
    waits = refund(payment_id="p1", id="e1")
    await desk.apply(waits)
    shard = await desk.shard()
    desk.now = NOON + DAY - timedelta(seconds=1)
    assert await desk.ledger.expire_parked(shard) == 0
    desk.now = NOON + DAY
    assert await desk.ledger.expire_parked(shard) == 1
    assert await desk.ledger.expire_parked(shard) == 0
    assert await desk.outcomes() == [("e1", "parked"), ("e1", "payment_not_found")]
    await desk.apply(payment())
    assert (await desk.apply(waits)).duplicates == 1
    assert (await desk.apply(again(waits))).applied == 1
    await coherent(desk)


async def test_more_than_one_transaction_takes_are_resumed_by_the_clock_and_none_is_lost(lone_desk: Desk) -> None:
    desk = lone_desk
    waits = [refund(f"r{number}", 1, payment_id=f"p{number % 6}") for number in range(5_400)]
    for start in range(0, len(waits), 1_800):
        await desk.apply(*waits[start : start + 1_800])
    result = await desk.apply(*(payment(f"p{number}") for number in range(6)))
    assert result.applied == 6 + 5_000
    shard = await desk.shard()
    desk.now = NOON + 2 * DAY
    assert await desk.ledger.expire_parked(shard) == 0
    assert await desk.ledger.resume_arrived(shard) == 400
    assert await desk.ledger.resume_arrived(shard) == 0
    assert (await desk.balances())["platform:cash"] == 6 * 1_000 - 5_400
    await coherent(desk)


async def test_an_event_that_was_parked_in_a_lost_transaction_is_parked_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [desk.event(refund(payment_id="p1", id="e1")), desk.event(payment("p2", id="e2"))]
    with monkeypatch.context() as broken:
        broken.setattr("infra.ledger.save.save_outbox", _lose_connection)
        with pytest.raises(TransientError):
            await desk.apply_events(events)
    await desk.apply_events(events)
    await desk.apply(payment())
    assert [entry["kind"] for entry in await desk.entries()] == ["payment", "payment", "refund"]
    await coherent(desk)


async def _lose_connection(*_: object, **__: object) -> None:
    raise asyncpg.ConnectionDoesNotExistError("gone")


async def test_parked_events_of_other_tenants_and_providers_are_left_alone(desk: Desk) -> None:
    await desk.apply(
        refund(payment_id="p1"), refund(payment_id="p1", tenant="other"), refund(payment_id="p1", provider="x")
    )
    await desk.apply(payment())
    assert len(await desk.entries()) == 2
    assert await desk.entries("other") == []
    await desk.apply(payment(provider="x"), payment(tenant="other"))
    assert (len(await desk.entries()), len(await desk.entries("other"))) == (4, 2)
