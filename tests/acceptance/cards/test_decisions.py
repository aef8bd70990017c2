"""May it go ahead? What a processor of cards is answered, from its topic through the ledger and back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from tests.fixtures.fleet import Fleet
from tests.fixtures.issuer import DINER, PUMP, WALLET, Issuer

ROUNDS = 3


async def test_of_two_concurrent_requests_of_80_on_a_line_of_100_exactly_one_is_approved(fleet: Fleet) -> None:
    one, other = await fleet.partitions_by_worker("authorizations")
    pairs = list(product(one, other))
    for _ in range(ROUNDS):
        issuers = [Issuer(fleet) for _ in pairs]
        await asyncio.gather(*(issuer.opens(funds=100_00, meals=100_00) for issuer in issuers))
        for issuer, (first, second) in zip(issuers, pairs, strict=True):
            issuer.asks("first", 80_00, partition=first, account=WALLET)
            issuer.asks("second", 80_00, partition=second, account=WALLET)
        await asyncio.gather(*(issuer.published() for issuer in issuers))
        await fleet.drained()
        for issuer in issuers:
            assert sorted((await issuer.answers()).values(), key=str) == [
                ("approved", None),
                ("declined", "insufficient_credits"),
            ]
            assert await issuer.expensed("meals") == [80_00]
            assert (await issuer.wallet())[-1] == (100_00, 80_00)


async def test_of_two_categories_of_which_one_line_is_short_neither_is_touched(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00, fuel=500_00, travel=10_00)
    issuer.asks("pump", 50_00, PUMP, account=WALLET)
    await issuer.all_read()
    (decided,) = (await issuer.decisions())["pump"]
    assert (decided["decision"], decided["reasons"]) == ("declined", ["insufficient_credits"])
    assert decided["expense_categories"] == ["fuel", "travel"]
    assert decided["lines_of_credit"] == [
        {"id": "line-fuel", "available": 500_00},
        {"id": "line-travel", "available": 10_00},
    ]
    assert await issuer.expensed("fuel", "travel") == [0, 0]
    assert await issuer.wallet() == [(100_00, 0)]


async def test_both_lines_of_a_payment_of_two_categories_are_expensed(issuer: Issuer) -> None:
    await issuer.opens(fuel=500_00, travel=50_00)
    issuer.asks("pump", 50_00, PUMP)
    await issuer.all_read()
    assert await issuer.answers() == {"pump": ("approved", None)}
    assert await issuer.expensed("fuel", "travel") == [50_00, 50_00]


async def test_a_confirmation_before_the_decision_waits_for_it(issuer: Issuer) -> None:
    await issuer.opens(meals=100_00)
    issuer.tells("confirmed", "meal", "c-1")
    await issuer.all_read()
    assert (await issuer.authorization("meal"))["status"] == "pending"
    issuer.asks("meal", 40_00)
    issuer.asks("dinner", 60_00)
    issuer.tells("confirmed", "dinner", "c-2")
    await issuer.all_read()
    assert await issuer.life("meal") == ["pending", "approved"]
    assert await issuer.life("dinner") == ["approved", "approved"]
    assert [(await issuer.authorization(name))["confirmed"] for name in ("meal", "dinner")] == [True, True]
    assert await issuer.expensed("meals") == [100_00]


async def test_an_answer_that_comes_too_late_is_no_and_the_stand_in_advice_stands(issuer: Issuer) -> None:
    await issuer.opens(funds=10_00, meals=30_00)
    respond_by = datetime.now(UTC) + timedelta(seconds=0.5)
    with issuer.fleet.frozen_workers():
        issuer.asks("meal", 20_00, respond_by=respond_by)
        await issuer.published()
        await asyncio.sleep((respond_by - datetime.now(UTC)).total_seconds() + 0.05)
    await issuer.fleet.drained()
    assert await issuer.answers() == {"meal": ("declined", "expired_before_decision")}
    assert await issuer.expensed("meals") == [0]

    # By then the processor has said yes in our place, to more than there is.
    issuer.advises("meal", 40_00, account=WALLET)
    await issuer.all_read()
    first, second = (await issuer.decisions())["meal"]
    assert (first["decided_by"], second["decided_by"]) == ("ledger", "stand_in")
    assert (second["decision"], second.get("reason"), second["reasons"]) == ("approved", None, [])
    assert (second["approved_amount"], second["hold_amount"]) == (40_00, 40_00)
    assert second["lines_of_credit"] == [{"id": "line-meals", "available": -10_00}]
    assert await issuer.expensed("meals") == [40_00]
    assert (await issuer.wallet())[-1] == (10_00, 40_00)


async def test_an_answer_in_time_is_given(issuer: Issuer) -> None:
    await issuer.opens(meals=30_00)
    issuer.asks("meal", 20_00, respond_by=datetime.now(UTC) + timedelta(minutes=1))
    await issuer.all_read()
    assert await issuer.answers() == {"meal": ("approved", None)}


async def test_an_advice_joins_an_approval_and_never_counts_twice(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00, meals=100_00)
    issuer.asks("meal", 40_00, account=WALLET)
    issuer.advises("meal", 40_00, account=WALLET)
    issuer.advises("dinner", 50_00, account=WALLET)
    issuer.asks("dinner", 50_00, account=WALLET)
    await issuer.all_read()
    assert await issuer.life("meal") == await issuer.life("dinner") == ["approved", "approved"]
    assert await issuer.expensed("meals") == [90_00]
    assert (await issuer.wallet())[-1] == (100_00, 90_00)


@pytest.mark.parametrize("anew", [False, True], ids=["the same delivery", "another id and partition"])
async def test_a_processor_that_repeats_everything_three_times_is_answered_once(issuer: Issuer, anew: bool) -> None:
    await issuer.opens(funds=100_00, meals=100_00)
    said = [
        issuer.tells("confirmed", "meal", "c"),
        issuer.asks("meal", 40_00, account=WALLET),
        issuer.tells("adjusted", "meal", "up", amount=50_00),
        issuer.tells("captured", "meal", "clearing", amount=45_00),
        issuer.tells("refunded", "meal", "back", amount=5_00),
        issuer.says("hold.created", hold_id="h", account=WALLET, amount=10_00, currency="EUR", direction="out"),
        issuer.says("hold.captured", hold_id="h", amount=7_00),
    ]
    await issuer.all_read()
    before = await issuer.fleet.said("decisions", issuer.tenant), await issuer.fleet.said("balances", issuer.tenant)
    for time in range(2):
        for number, event in enumerate(said):
            renamed = {"id": f"again-{time}-{number}"} if anew else {}
            issuer.repeats(event, partition=number % 4 if anew else None, **renamed)
    await issuer.all_read()
    assert await issuer.life("meal") == ["pending", "approved", "approved", "captured", "captured"]
    assert await issuer.expensed("meals") == [40_00]
    assert (await issuer.wallet())[-1] == (100_00 - 40_00 - 7_00, 0)
    after = await issuer.fleet.said("decisions", issuer.tenant), await issuer.fleet.said("balances", issuer.tenant)
    assert after == before
    assert not [data for data in await issuer.heard("outcomes") if data["type"] == "event.rejected.v1"]


async def test_an_amount_of_0_asks_whether_the_card_is_good_and_expenses_nothing(issuer: Issuer) -> None:
    await issuer.opens(meals=0)
    issuer.asks("good", 0, account=WALLET)
    issuer.asks("no-category", 0, DINER | {"mcc": "0001"}, account=WALLET)
    await issuer.all_read()
    assert await issuer.answers() == {"good": ("approved", None), "no-category": ("declined", "no_expense_category")}
    assert (await issuer.decisions())["good"][0]["approved_amount"] == 0
    assert (await issuer.expensed("meals"), await issuer.wallet()) == ([0], [])
    # What it turns out to cost can follow.
    issuer.tells("captured", "good", "clearing", amount=3_00)
    await issuer.all_read()
    assert (await issuer.expensed("meals"), await issuer.wallet()) == ([3_00], [(-3_00, 0)])


async def test_where_less_will_do_the_least_that_lines_and_account_have_is_approved(issuer: Issuer) -> None:
    await issuer.opens(funds=30_00, fuel=500_00, travel=40_00)
    issuer.asks("part", 50_00, PUMP, account=WALLET, partial_approval=True)
    issuer.asks("nothing-left", 50_00, PUMP, account=WALLET, partial_approval=True)
    await issuer.all_read()
    decisions = await issuer.decisions()
    (part,), (nothing,) = decisions["part"], decisions["nothing-left"]
    assert (part["decision"], part["reason"], part["approved_amount"]) == ("approved", "partial", 30_00)
    assert part["reasons"] == nothing["reasons"] == ["insufficient_credits", "insufficient_balance"]
    assert (nothing["decision"], nothing["reason"]) == ("declined", "insufficient_credits")
    assert await issuer.expensed("fuel", "travel") == [30_00, 30_00]
    assert (await issuer.wallet())[-1] == (30_00, 30_00)
