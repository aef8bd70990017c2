"""The clock process against everybody else: what nobody captured in time is given back, once, and clears late."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random

from tests.fixtures.fleet import Event
from tests.fixtures.issuer import WALLET, Issuer

CAPTURED, LATE = "authorization_captured", ["hold_not_pending"]
RACES = 100
SPACING = timedelta(milliseconds=8)


def soon(seconds: float = 0.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def is_released(decisions: dict[str, list[Event]], name: str) -> bool:
    return any(data.get("status") == "released" for data in decisions.get(name, ()))


async def test_what_clears_after_its_expiry_is_posted_and_says_so(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00, meals=100_00)
    # Its end is over already, and nobody captured it: the clock's next tick gives it back.
    issuer.asks("meal", 60_00, account=WALLET, expires_at=soon())
    await issuer.all_read()
    await issuer.until(lambda decisions: is_released(decisions, "meal"))
    decided, released = (await issuer.decisions())["meal"]
    assert (decided["decision"], released["cause"]["type"]) == ("approved", "hold.expired.v1")
    assert released["cause"]["id"].startswith("expire:visa:meal:")
    assert released["cause"]["source"] == "ledgerstream"
    assert await issuer.expensed("meals") == [0]
    assert await issuer.wallet() == [(100_00, 0), (100_00, 60_00), (100_00, 0)]

    issuer.tells("captured", "meal", "clearing", amount=60_00)
    await issuer.all_read()
    assert await issuer.life("meal") == ["approved", "released", "captured"]
    assert await issuer.entries() == [(CAPTURED, -60_00, LATE)]
    assert await issuer.expensed("meals") == [60_00]
    assert (await issuer.wallet())[-1] == (40_00, 0)


async def test_what_was_captured_before_its_expiry_is_not_given_back(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00, meals=100_00)
    # The capture waits for its request, so that the clock can't come between them.
    issuer.tells("captured", "meal", "clearing", amount=60_00)
    await issuer.all_read()
    ends = soon()
    issuer.asks("meal", 60_00, account=WALLET, expires_at=ends)
    issuer.asks("witness", 1_00, account=WALLET, expires_at=ends)
    await issuer.all_read()
    # When the clock has been at the one, it has been at the other, too.
    await issuer.until(lambda decisions: is_released(decisions, "witness"))
    assert await issuer.life("meal") == ["approved", "captured"]
    assert await issuer.entries() == [(CAPTURED, -60_00, [])]
    assert await issuer.expensed("meals") == [60_00]
    assert (await issuer.wallet())[-1] == (40_00, 0)


async def test_of_a_capture_and_an_expiry_that_race_exactly_one_wins(issuer: Issuer) -> None:
    await issuer.opens(funds=10_000_00, meals=10_000_00)
    names = [f"race-{number:03}" for number in range(RACES)]
    begin = soon(2.5)
    for number, name in enumerate(names):
        ends = begin + number * SPACING
        issuer.asks(name, 1_00, account=WALLET, expires_at=ends)
        held = {"account": WALLET, "amount": 1_00, "currency": "EUR", "direction": "out"}
        issuer.says("hold.created", hold_id=name, expires_at=ends, **held)
    await issuer.all_read()
    await asyncio.sleep((begin - soon(0.3)).total_seconds())
    # One after the other, so that the clock comes in the middle of them whenever it ticks; the last are too late.
    order = names[:-3]
    Random(20261121).shuffle(order)
    for name in order:
        captures(issuer, name)
        await issuer.published()
    await issuer.until(lambda decisions: is_released(decisions, names[-1]))
    for name in names[-3:]:
        captures(issuer, name)
    await issuer.all_read()

    won = await authorizations_that_were_captured_in_time(issuer, names)
    held = await holds_that_were_captured_in_time(issuer, names)
    assert won | held, "nothing was captured in time: no race"
    assert (won | held).isdisjoint(names[-3:])
    assert await issuer.expensed("meals") == [RACES * 1_00]
    assert (await issuer.wallet())[-1] == (10_000_00 - RACES * 1_00 - len(held) * 1_00, 0)


def captures(issuer: Issuer, name: str) -> None:
    issuer.tells("captured", name, "clearing", amount=1_00)
    issuer.says("hold.captured", hold_id=name)


async def authorizations_that_were_captured_in_time(issuer: Issuer, names: list[str]) -> set[str]:
    """Of each: either captured, and never released; or released, and its capture says so."""
    lives = {
        name: [data.get("decision") or data["status"] for data in said]
        for name, said in (await issuer.decisions()).items()
    }
    won = {name for name in names if lives[name] == ["approved", "captured"]}
    assert {name: lives[name] for name in names if name not in won} == {
        name: ["approved", "released", "captured"] for name in names if name not in won
    }
    breaches = [breaches for kind, _, breaches in await issuer.entries() if kind == CAPTURED]
    assert sorted(breaches) == [[]] * len(won) + [LATE] * (len(names) - len(won))
    return won


async def holds_that_were_captured_in_time(issuer: Issuer, names: list[str]) -> set[str]:
    """Of each: either captured, and it never expired; or expired, and its capture was refused."""
    told: dict[str, list[str]] = {name: [] for name in names}
    refused = 0
    for data in await issuer.heard("outcomes"):
        if "hold_id" in data.get("result", {}):
            told[data["result"]["hold_id"]].append(data["result"]["status"])
        elif data["type"] == "event.rejected.v1":
            assert data["code"] == "hold_not_pending"
            refused += 1
    won = {name for name in names if told[name] == ["pending", "captured"]}
    assert {tuple(told[name]) for name in names if name not in won} <= {("pending", "expired")}
    assert refused == len(names) - len(won)
    return won
