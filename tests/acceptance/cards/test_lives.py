"""What becomes of an approved card payment: each case of the trade, from its topic to books, lines and holds."""

from __future__ import annotations

from tests.fixtures.issuer import DINER, HOTEL, PUMP, WALLET, Issuer


async def test_an_adjustment_goes_past_the_limit_for_the_money_is_spent(issuer: Issuer) -> None:
    await issuer.opens(funds=60_00, meals=100_00)
    issuer.asks("meal", 50_00, account=WALLET)
    issuer.tells("adjusted", "meal", "up", amount=130_00)
    await issuer.all_read()
    assert await issuer.amounts("meal") == ("approved", 130_00, 0, 0)
    assert await issuer.expensed("meals") == [130_00]
    assert await issuer.wallet() == [(60_00, 0), (60_00, 50_00), (60_00, 130_00)]
    # And leaves no room for anybody else.
    issuer.asks("next", 1, account=WALLET)
    await issuer.all_read()
    assert (await issuer.decisions())["next"][0]["reasons"] == ["insufficient_credits", "insufficient_balance"]


async def test_of_adjustments_in_the_wrong_order_the_latest_by_its_time_stands(issuer: Issuer) -> None:
    await issuer.opens(funds=500_00, meals=500_00)
    issuer.asks("meal", 50_00, account=WALLET)
    # Three partitions, in which order they are read is anybody's guess; then one that certainly is late.
    for partition, (minute, amount) in enumerate([(30, 80_00), (50, 70_00), (40, 90_00)]):
        issuer.tells("adjusted", "meal", f"at-{minute}", minute=minute, partition=partition, amount=amount)
    await issuer.all_read()
    issuer.tells("adjusted", "meal", "at-45", minute=45, amount=95_00)
    await issuer.all_read()
    assert await issuer.amounts("meal") == ("approved", 70_00, 0, 0)
    assert await issuer.expensed("meals") == [70_00]
    assert (await issuer.wallet())[-1] == (500_00, 70_00)
    last = (await issuer.decisions())["meal"][-1]
    assert (last["superseded"], last["authorized"], last["cause"]["type"]) == (True, 70_00, "authorization.adjusted.v1")


async def test_an_adjustment_that_comes_before_the_request_waits_for_it(issuer: Issuer) -> None:
    await issuer.opens(meals=500_00)
    issuer.tells("adjusted", "meal", "up", amount=80_00)
    await issuer.all_read()
    (parked,) = [data for data in await issuer.heard("outcomes") if data["type"] == "event.parked.v1"]
    assert (parked["code"], parked["waits_for"]) == ("authorization_not_found", "authorization meal of visa")
    issuer.asks("meal", 50_00)
    await issuer.all_read()
    assert await issuer.amounts("meal") == ("approved", 80_00, 0, 0)
    assert await issuer.expensed("meals") == [80_00]


async def test_a_fuel_pump_asks_for_1_holds_100_and_takes_63_20(issuer: Issuer) -> None:
    await issuer.opens(funds=200_00, fuel=150_00)
    issuer.asks("pump", 1_00, PUMP, account=WALLET, hold_amount=100_00)
    await issuer.all_read()
    (decided,) = (await issuer.decisions())["pump"]
    assert (decided["approved_amount"], decided["hold_amount"]) == (1_00, 100_00)
    assert decided["account"] == {"name": WALLET, "posted": -200_00, "held": 100_00, "available": 100_00}
    assert await issuer.expensed("fuel") == [1_00]

    issuer.tells("captured", "pump", "clearing", amount=63_20)
    await issuer.all_read()
    assert await issuer.amounts("pump") == ("captured", 1_00, 63_20, 0)
    assert await issuer.expensed("fuel") == [63_20]
    assert await issuer.wallet() == [(200_00, 0), (200_00, 100_00), (136_80, 0)]
    assert await issuer.entries() == [("authorization_captured", -63_20, [])]


async def test_a_pump_that_would_hold_more_than_there_is_is_declined(issuer: Issuer) -> None:
    await issuer.opens(funds=99_99, fuel=150_00)
    issuer.asks("pump", 1_00, PUMP, account=WALLET, hold_amount=100_00)
    await issuer.all_read()
    assert await issuer.answers() == {"pump": ("declined", "insufficient_balance")}
    assert (await issuer.expensed("fuel"), await issuer.wallet()) == ([0], [(99_99, 0)])


async def test_a_hotel_adjusts_twice_captures_twice_and_releases_the_rest(issuer: Issuer) -> None:
    await issuer.opens(funds=1_000_00, travel=1_000_00, lodging=1_000_00)
    issuer.asks("stay", 200_00, HOTEL, account=WALLET)
    issuer.tells("adjusted", "stay", "another-night", amount=300_00)
    issuer.tells("adjusted", "stay", "room-service", amount=420_00)
    issuer.tells("captured", "stay", "nights", amount=300_00, final=False)
    issuer.tells("captured", "stay", "breakfasts", amount=45_00, final=False)
    await issuer.all_read()
    assert await issuer.amounts("stay") == ("approved", 420_00, 345_00, 0)
    assert await issuer.expensed("travel", "lodging") == [420_00, 420_00]

    issuer.tells("released", "stay", "checked-out", reason="partial")
    await issuer.all_read()
    assert await issuer.amounts("stay") == ("released", 345_00, 345_00, 0)
    assert await issuer.expensed("travel", "lodging") == [345_00, 345_00]
    assert await issuer.wallet() == [
        (1_000_00, 0),
        (1_000_00, 200_00),
        (1_000_00, 300_00),
        (1_000_00, 420_00),
        (700_00, 120_00),
        (655_00, 75_00),
        (655_00, 0),
    ]
    assert await issuer.entries() == [("authorization_captured", -300_00, []), ("authorization_captured", -45_00, [])]


async def test_a_part_that_is_released_leaves_the_rest_authorized(issuer: Issuer) -> None:
    await issuer.opens(funds=1_000_00, travel=1_000_00)
    issuer.asks("stay", 200_00, HOTEL, account=WALLET)
    issuer.tells("released", "stay", "one-night-less", reason="partial", amount=80_00)
    issuer.tells("captured", "stay", "nights", amount=120_00)
    await issuer.all_read()
    assert await issuer.life("stay") == ["approved", "approved", "captured"]
    assert await issuer.expensed("travel") == [120_00]
    assert await issuer.wallet() == [(1_000_00, 0), (1_000_00, 200_00), (1_000_00, 120_00), (880_00, 0)]


async def test_a_tip_is_taken_over_what_was_authorized(issuer: Issuer) -> None:
    await issuer.opens(funds=60_00, meals=60_00)
    issuer.asks("meal", 60_00, account=WALLET)
    issuer.tells("captured", "meal", "clearing", amount=72_00)
    await issuer.all_read()
    assert await issuer.amounts("meal") == ("captured", 60_00, 72_00, 0)
    assert await issuer.expensed("meals") == [72_00]
    assert await issuer.wallet() == [(60_00, 0), (60_00, 60_00), (-12_00, 0)]
    assert await issuer.entries() == [("authorization_captured", -72_00, [])]


async def test_a_force_post_needs_nobody_who_asked(issuer: Issuer) -> None:
    await issuer.opens(funds=20_00, meals=100_00)
    issuer.tells("captured", "ferry", "kiosk", amount=7_00, force_post=True, currency="EUR", account=WALLET)
    issuer.tells("captured", "kiosk", "lines-alone", amount=9_00, force_post=True, currency="EUR")
    await issuer.all_read()
    assert await issuer.amounts("ferry") == ("captured", 0, 7_00, 0)
    assert await issuer.amounts("kiosk") == ("captured", 0, 9_00, 0)
    assert (await issuer.life("ferry"), await issuer.expensed("meals")) == (["captured"], [0])
    assert await issuer.wallet() == [(20_00, 0), (13_00, 0)]
    assert await issuer.entries() == [("authorization_captured", -7_00, [])]


async def test_what_clears_after_a_decline_is_posted_and_touches_no_line(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00, meals=10_00)
    issuer.asks("meal", 50_00, account=WALLET)
    issuer.tells("captured", "meal", "all-the-same", amount=50_00)
    await issuer.all_read()
    assert await issuer.life("meal") == ["declined", "declined"]
    assert await issuer.amounts("meal") == ("declined", 0, 50_00, 0)
    assert (await issuer.expensed("meals"), (await issuer.wallet())[-1]) == ([0], (50_00, 0))


async def test_a_refund_after_the_capture_gives_account_and_lines_back(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00, meals=100_00)
    issuer.asks("meal", 80_00, account=WALLET)
    issuer.tells("captured", "meal", "clearing", amount=80_00)
    issuer.tells("refunded", "meal", "cold-soup", amount=30_00)
    await issuer.all_read()
    assert await issuer.amounts("meal") == ("captured", 80_00, 80_00, 30_00)
    assert await issuer.expensed("meals") == [50_00]
    assert (await issuer.wallet())[-1] == (50_00, 0)

    # More than is left comes back to the account whole; to the line only what it has of this payment.
    issuer.asks("snack", 10_00, DINER, account=WALLET)
    issuer.tells("refunded", "meal", "good-will", amount=70_00)
    await issuer.all_read()
    assert await issuer.amounts("meal") == ("captured", 80_00, 80_00, 100_00)
    assert await issuer.expensed("meals") == [10_00]
    assert (await issuer.wallet())[-1] == (120_00, 10_00)
    assert [entry[:2] for entry in await issuer.entries()] == [
        ("authorization_captured", -80_00),
        ("authorization_refunded", 30_00),
        ("authorization_refunded", 70_00),
    ]
