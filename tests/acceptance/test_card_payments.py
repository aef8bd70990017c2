"""Card payments through a real Kafka and a real Postgres: what their processor is told, and what stays in the books."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.postgres import queries_cards
from infra.postgres.reading import reading
from tests.fixtures.ledger import RunningLedger

OWNER = {"owner_type": "employee", "owner_ref": "3f0c6f1e-8f6f-4c39-9a3e-5d1f7c1b2a44"}
DINER = {"merchant_id": "m-1", "acquirer_id": "a-1", "mcc": "5812", "name": "Diner", "country": "FRA"}
PUMP = DINER | {"mcc": "5541", "name": "Pump"}
SHIP = DINER | {"mcc": "7011", "name": "Hotel on a ship"}


class Issuer:
    """A processor of cards, and the tenant whose cards they are."""

    def __init__(self, ledger: RunningLedger) -> None:
        self.ledger = ledger
        self._events: list[dict[str, Any]] = []
        # Of late: what was asked for long ago has expired.
        self._began = datetime.now(UTC) - timedelta(hours=1)
        self._minute = 0

    def says(self, type_name: str, *, minute: int | None = None, key: str | None = None, **data: Any) -> None:
        """To be published with the next `all_read`; each a minute after the one before, unless it says when."""
        self._minute += 1
        time = self._began + timedelta(minutes=self._minute if minute is None else minute)
        event = self.ledger.event(f"{type_name}.v1", data, time=time.isoformat())
        self._events.append(event if key is None else event | {"idempotencykey": key})

    def asks(self, name: str, amount: int, merchant: Mapping[str, str] = DINER, **more: Any) -> None:
        data = {"amount": amount, "currency": "EUR", "card_id": "card-1", "merchant": dict(merchant)}
        self.says("authorization.requested", provider="issuer", external_id=name, **data | more)

    def tells(self, what: str, name: str, event_id: str, *, minute: int | None = None, **data: Any) -> None:
        self.says(
            f"authorization.{what}", minute=minute, provider="issuer", external_id=name, event_id=event_id, **data
        )

    def category(self, code: str, *mccs: str, limit: int | None = None) -> None:
        self.says("expense_category.create", code=code, name=code, match=[{"mccs": list(mccs)}])
        if limit is not None:
            line = {"line_of_credit_id": f"line-{code}", "expense_category": code, "currency": "EUR"}
            self.says("line_of_credit.create", **line, **OWNER, credits_limit=limit)

    async def all_read(self) -> None:
        events, self._events = self._events, []
        await self.ledger.publish(*events)
        await self.ledger.wait_until_drained()

    async def decisions(self) -> dict[str, list[dict[str, Any]]]:
        """What was published of each authorization, in order."""
        said: dict[str, list[dict[str, Any]]] = {}
        for event in await self.ledger.said("decisions"):
            said.setdefault(event["data"]["external_id"], []).append(event["data"])
        return said

    async def expensed(self, code: str) -> int:
        async with reading(self.ledger.settings) as books:
            return (await queries_cards.line(books, "acme", f"line-{code}"))["expensed_credits"]


async def test_a_line_of_credit_is_never_overdrawn_by_what_is_asked(running_ledger: RunningLedger) -> None:
    issuer = Issuer(running_ledger)
    issuer.says("card.assign", key="assign", card_id="card-1", **OWNER)
    issuer.category("meals", "5811-5814", limit=100_00)
    issuer.category("fuel", "5541-5542", limit=500_00)
    issuer.category("travel", "5541", limit=10_00)
    issuer.category("lodging", "7011")
    await issuer.all_read()

    issuer.asks("first", 80_00)
    issuer.asks("second", 80_00)
    issuer.asks("two-categories", 50_00, PUMP)
    issuer.asks("nothing", 0)
    issuer.asks("no-line", 1_00, SHIP)
    issuer.asks("no-category", 1_00, DINER | {"mcc": "0001"})
    issuer.asks("part", 50_00, partial_approval=True)
    issuer.asks("late", 1_00, respond_by="2026-03-02T09:00:00Z")
    await issuer.all_read()

    said = {name: decided for name, (decided,) in (await issuer.decisions()).items()}
    assert sorted(said[name]["decision"] for name in ("first", "second")) == ["approved", "declined"]
    reasons = {name: (decided["decision"], decided.get("reason")) for name, decided in said.items()}
    del reasons["first"], reasons["second"]
    assert reasons == {
        "two-categories": ("declined", "insufficient_credits"),
        "nothing": ("approved", None),
        "no-line": ("declined", "no_line_of_credit"),
        "no-category": ("declined", "no_expense_category"),
        "part": ("approved", "partial"),
        "late": ("declined", "expired_before_decision"),
    }
    assert said["part"]["approved_amount"] == 20_00
    assert [await issuer.expensed(code) for code in ("meals", "fuel", "travel")] == [100_00, 0, 0]


async def test_a_card_payment_is_followed_through_its_life(running_ledger: RunningLedger) -> None:
    issuer = Issuer(running_ledger)
    issuer.says("card.assign", key="assign", card_id="card-1", **OWNER)
    issuer.category("meals", "5812", limit=1_000_00)
    issuer.category("fuel", "5541", limit=1_000_00)
    issuer.says("account.create", name="card:1", type="liability")
    issuer.says("account.create", name="platform:cash", type="asset")
    legs = [("platform:cash", 1_000_00), ("card:1", -1_000_00)]
    postings = [{"account": account, "amount": amount, "currency": "EUR"} for account, amount in legs]
    issuer.says("entry.post", key="top-up", postings=postings)
    await issuer.all_read()

    issuer.tells("confirmed", "meal", "c")
    issuer.asks("meal", 40_00, account="card:1")
    issuer.tells("adjusted", "meal", "up", minute=30, amount=50_00)
    issuer.tells("adjusted", "meal", "stale", minute=29, amount=45_00)
    issuer.tells("captured", "meal", "clearing", amount=55_00)
    issuer.tells("refunded", "meal", "back", amount=5_00)
    issuer.asks("pump", 1_00, PUMP, account="card:1", hold_amount=100_00)
    await issuer.all_read()
    async with reading(running_ledger.settings) as books:
        pump = await queries_cards.authorization(books, "acme", "issuer", "pump")
    assert (pump["status"], pump["authorized"], pump["decision"]) == ("approved", 1_00, "approved")

    issuer.tells("captured", "pump", "clearing", amount=63_20)
    issuer.tells("captured", "nobody-asked", "f", amount=7_00, force_post=True, currency="EUR", account="card:1")
    await issuer.all_read()

    async with reading(running_ledger.settings) as books:
        meal = await queries_cards.authorization(books, "acme", "issuer", "meal")
    assert meal["confirmed"]
    assert (meal["status"], meal["authorized"], meal["captured"], meal["refunded"]) == ("captured", 50_00, 55_00, 5_00)
    assert [each["event_id"] for each in meal["events"]] == ["c", None, "up", "stale", "clearing", "back"]
    assert [await issuer.expensed(code) for code in ("meals", "fuel")] == [50_00, 63_20]
    last = [event["data"] for event in await running_ledger.said("balances") if event["data"]["account"] == "card:1"][
        -1
    ]
    assert (last["available"], last["held"]) == (1_000_00 - 50_00 - 63_20 - 7_00, 0)


async def test_a_processor_that_says_everything_three_times_is_answered_once(running_ledger: RunningLedger) -> None:
    issuer = Issuer(running_ledger)
    issuer.says("card.assign", key="assign", card_id="card-1", **OWNER)
    issuer.category("meals", "5812", limit=100_00)
    await issuer.all_read()
    for _ in range(3):
        issuer.asks("meal", 40_00)
        issuer.tells("captured", "meal", "clearing", amount=40_00)
    await issuer.all_read()
    (published,) = (await issuer.decisions()).values()
    assert [each.get("decision", each.get("status")) for each in published] == ["approved", "captured"]
    assert await issuer.expensed("meals") == 40_00
