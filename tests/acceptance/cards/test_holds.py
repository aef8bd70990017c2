"""Holds, from their topic to the balances that a subscriber reads: made, adjusted, captured, voided, expired."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fixtures.issuer import CASH, WALLET, Issuer
from tests.fixtures.programs import SECONDS_MAX


def holds(issuer: Issuer, amount: int, hold_id: str = "h", **more: Any) -> None:
    issuer.says("hold.created", hold_id=hold_id, account=WALLET, amount=amount, currency="EUR", **more)


async def outcomes(issuer: Issuer) -> list[str]:
    """What was told of each event about a hold: its status after it, or the code with which it was refused."""
    told = []
    for data in await issuer.heard("outcomes"):
        if data["event"]["type"].startswith("hold."):
            told.append(data["code"] if "code" in data else data["result"]["status"])
    return told


@pytest.mark.parametrize(("direction", "sign"), [("in", 1), ("out", -1)])
async def test_a_hold_sets_money_aside_and_its_capture_moves_it_its_own_way(
    issuer: Issuer, direction: str, sign: int
) -> None:
    await issuer.opens(funds=100_00)
    holds(issuer, 40_00, direction=direction, payment_id="p-1")
    await issuer.all_read()
    last = (await issuer.heard("balances"))[-1]
    assert (last["hold_id"], last["held"], last["available"]) == ("h", 40_00, 60_00)
    assert "entry_id" not in last

    issuer.says("hold.captured", hold_id="h", amount=25_00)
    await issuer.all_read()
    assert await issuer.wallet() == [(100_00, 0), (100_00, 40_00), (100_00 + sign * 25_00, 0)]
    (entry,) = [data for data in await issuer.heard("entries") if data["kind"] == "hold_captured"]
    legs = [(leg["account"], leg["amount"]) for leg in entry["postings"]]
    assert legs == ([(CASH, 25_00), (WALLET, -25_00)] if direction == "in" else [(WALLET, 25_00), (CASH, -25_00)])
    assert entry["references"] == {"payment_id": "p-1"}
    found = await issuer.hold("h")
    assert (found["status"], found["direction"], found["held"], found["captured"]) == ("captured", direction, 0, 25_00)
    assert found["entry_ids"] == [entry["entry_id"]]


async def test_a_hold_is_adjusted_up_and_down_and_what_is_older_changes_nothing(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00)
    holds(issuer, 40_00, direction="out")
    issuer.says("hold.adjusted", hold_id="h", adjustment_id="up", amount=90_00, minute=50)
    issuer.says("hold.adjusted", hold_id="h", adjustment_id="stale", amount=10_00, minute=49)
    issuer.says("hold.adjusted", hold_id="h", adjustment_id="more-than-there-is", amount=100_01, minute=51)
    issuer.says("hold.adjusted", hold_id="h", adjustment_id="down", amount=30_00, minute=52)
    await issuer.all_read()
    assert await outcomes(issuer) == ["pending"] * 5
    assert await issuer.wallet() == [(100_00, 0), (100_00, 40_00), (100_00, 90_00), (100_00, 100_01), (100_00, 30_00)]
    superseded = [data for data in await issuer.heard("outcomes") if data.get("result", {}).get("superseded")]
    assert len(superseded) == 1

    # An account without a floor may be held below 0; with one it may not.
    issuer.says("account.update", name=WALLET, floor={"EUR": 0})
    await issuer.all_read()
    issuer.says("hold.adjusted", hold_id="h", adjustment_id="again-too-much", amount=100_01, minute=53)
    holds(issuer, 70_01, "another", direction="out")
    holds(issuer, 70_00, "a-last", direction="out")
    await issuer.all_read()
    assert (await outcomes(issuer))[5:] == ["insufficient_balance", "insufficient_balance", "pending"]
    assert (await issuer.wallet())[-1] == (100_00, 100_00)


async def test_a_hold_is_captured_in_parts_until_the_final_one_releases_the_rest(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00)
    holds(issuer, 80_00, direction="out")
    issuer.says("hold.captured", hold_id="h", amount=30_00, final=False, capture_id="1")
    issuer.says("hold.captured", hold_id="h", amount=20_00, final=False, capture_id="2")
    issuer.says("hold.captured", hold_id="h", amount=30_01, final=False, capture_id="more-than-is-left")
    issuer.says("hold.captured", hold_id="h", amount=10_00, capture_id="3")
    issuer.says("hold.captured", hold_id="h", amount=1, capture_id="after-the-end")
    await issuer.all_read()
    assert await outcomes(issuer) == [
        "pending",
        "pending",
        "pending",
        "capture_exceeds_hold",
        "captured",
        "hold_not_pending",
    ]
    assert await issuer.wallet() == [(100_00, 0), (100_00, 80_00), (70_00, 50_00), (50_00, 30_00), (40_00, 0)]
    found = await issuer.hold("h")
    assert (found["status"], found["amount"], found["captured"]) == ("captured", 80_00, 60_00)
    assert len(found["entry_ids"]) == 3


async def test_a_voided_hold_gives_back_what_it_held_and_takes_no_capture(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00)
    holds(issuer, 80_00, direction="out")
    issuer.says("hold.captured", hold_id="h", amount=30_00, final=False, capture_id="1")
    issuer.says("hold.voided", hold_id="h")
    issuer.says("hold.captured", hold_id="h", capture_id="2")
    await issuer.all_read()
    assert await outcomes(issuer) == ["pending", "pending", "voided", "hold_not_pending"]
    assert await issuer.wallet() == [(100_00, 0), (100_00, 80_00), (70_00, 50_00), (70_00, 0)]
    assert (await issuer.hold("h"))["status"] == "voided"


async def test_a_hold_ends_by_the_clock_and_says_so(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00)
    ends = datetime.now(UTC)
    holds(issuer, 80_00, direction="out", expires_at=ends)
    holds(issuer, 5_00, "longer", direction="out")
    await issuer.all_read()
    async with asyncio.timeout(SECONDS_MAX):
        while (await issuer.hold("h"))["status"] == "pending":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await issuer.fleet.drained()
    expired = (await issuer.heard("outcomes"))[-1]
    assert expired["result"] == {"hold_id": "h", "status": "expired"}
    assert expired["event"] == {
        "type": "hold.expired.v1",
        "id": f"expire:h:{ends.isoformat()}",
        "source": "ledgerstream",
    }
    assert (await issuer.heard("balances"))[-1]["cause"] == expired["event"]
    assert await issuer.wallet() == [(100_00, 0), (100_00, 80_00), (100_00, 85_00), (100_00, 5_00)]
    issuer.says("hold.captured", hold_id="h", capture_id="late")
    await issuer.all_read()
    assert (await outcomes(issuer))[-1] == "hold_not_pending"


async def test_what_is_said_of_a_hold_before_it_is_made_waits_for_it(issuer: Issuer) -> None:
    await issuer.opens(funds=100_00)
    issuer.says("hold.captured", hold_id="h", amount=30_00)
    await issuer.all_read()
    holds(issuer, 80_00, direction="out")
    await issuer.all_read()
    assert await outcomes(issuer) == ["hold_not_found", "pending", "captured"]
    assert (await issuer.wallet())[-1] == (70_00, 0)
