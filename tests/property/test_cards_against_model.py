"""Holds and card payments on Postgres against the ledger of plain dicts: whatever comes, in whatever batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.events import Event
from domain.reservations import Resolution
from infra.devstack import RunningStack
from infra.records import Origin
from infra.settings import Settings
from schemas.registry import EVENT_TYPES
from schemas.wire import with_resolution
from tests.coherence import assert_coherent
from tests.fixtures.cards import OWNER, card_payment
from tests.fixtures.database import database
from tests.fixtures.desk import NOON, Desk, Envelope, desk_on
from tests.model import Book, Model

HISTORIES, EVENTS = 8, 100
OTHER = "5f0c7a52-6a3b-4a52-9a7e-2f9d0d1f6a02"

_runs = count(1)


@pytest.fixture(scope="module")
async def books(stack: RunningStack) -> Any:
    async with database(stack, 2) as url:
        yield replace(Settings(), database_url=url, shards=2)


class Draw:
    """Draws events that have much to do with one another."""

    def __init__(self, chance: random.Random, tenant: str) -> None:
        self.chance, self.tenant, self.number = chance, tenant, 0

    def document(self, type_name: str, minutes: int = 0, **data: Any) -> Envelope:
        self.number += 1
        document = {
            "specversion": "1.0",
            "id": f"e{self.number}",
            "source": "s",
            "type": type_name,
            "time": (NOON + timedelta(minutes=minutes)).isoformat(),
            "tenantid": self.tenant,
            "data": data,
        }
        if EVENT_TYPES[type_name].needs_key:
            document["idempotencykey"] = f"k{self.number}"
        return document

    def begin(self) -> list[Envelope]:
        made = [self.document("expense_category.create.v1", code=code, name=code) for code in ("food", "travel")]
        for line_id, code in (("L1", "food"), ("L2", "travel")):
            owned = {"owner_type": "team", "owner_ref": OWNER, "expense_category": code, "currency": "EUR"}
            made.append(
                self.document("line_of_credit.create.v1", line_of_credit_id=line_id, credits_limit=150, **owned)
            )
        made.append(self.document("account.create.v1", name="w1", type="liability", floor={"EUR": 0}))
        made.append(self.document("account.create.v1", name="w2", type="asset"))
        legs = [
            {"account": "w2", "amount": 300, "currency": "EUR"},
            {"account": "w1", "amount": -300, "currency": "EUR"},
        ]
        return [*made, self.document("entry.post.v1", postings=legs)]

    def event(self) -> Envelope:
        pick = self.chance.choice
        minutes = self.chance.randint(-60, 0)
        amount = pick([0, 1, 20, 40, 80, 80, 120, 2**63 - 1, 2**63])
        kind = pick(["hold"] * 4 + ["ask"] * 4 + ["later"] * 7 + ["line"] * 2 + ["account"])
        return getattr(self, f"_{kind}")(minutes, amount)  # type: ignore[no-any-return]

    def _maybe(self, **data: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if self.chance.random() < 0.4}

    def _hold(self, minutes: int, amount: int) -> Envelope:
        pick = self.chance.choice
        hold, what = {"hold_id": pick(["h1", "h2", "h3", "h4"])}, pick(["created", "adjusted", "captured", "voided"])
        ends = (NOON + timedelta(hours=pick([1, 300]))).isoformat()
        if what == "created":
            hold |= {"account": pick(["w1", "w2", "none"]), "amount": amount, "currency": pick(["EUR", "EUR", "XXQ"])}
            hold |= self._maybe(direction="out", expires_at=ends, payment_id="p")
        if what == "adjusted":
            hold |= {"adjustment_id": pick("123"), "amount": amount} | self._maybe(expires_at=ends)
        if what == "captured":
            hold |= {"capture_id": pick("1234"), "final": pick([True, False])} | self._maybe(amount=amount)
        return self.document(f"hold.{what}.v1", minutes, **hold)

    def _ask(self, minutes: int, amount: int) -> Envelope:
        pick = self.chance.choice
        ends = (NOON + timedelta(hours=pick([1, 300]))).isoformat()
        more = self._maybe(account=pick(["w1", "w1", "w2", "none"]), hold_amount=pick([0, 10, 100]), expires_at=ends)
        what = pick(["requested", "requested", "advised"])
        if what == "requested":
            respond_by = (NOON + timedelta(minutes=pick([-1, 60]))).isoformat()
            more |= self._maybe(partial_approval=True, respond_by=respond_by)
        data = card_payment(pick("abcdef"), amount, **more) | {"currency": pick(["EUR"] * 5 + ["JPY", "XXQ"])}
        lines = pick([{"food": "L1"}, {"food": "L1", "travel": "L2"}, {}, {"food": "L9"}, {"nope": "L1"}])
        return self.document(f"authorization.{what}.v1", minutes, **data) | {"xlines": lines}

    def _later(self, minutes: int, amount: int) -> Envelope:
        pick = self.chance.choice
        what = pick(["confirmed", "adjusted", "captured", "captured", "refunded", "released"])
        data = {"provider": "visa", "external_id": pick("abcdef"), "event_id": str(self.chance.randint(1, 60))}
        if what in ("adjusted", "captured", "refunded"):
            data["amount"] = amount
        if what == "captured":
            data |= self._maybe(final=False, account=pick(["w1", "w2", "new"]))
            data |= pick([{}, {}, {"currency": "EUR"}, {"force_post": True, "currency": "EUR"}])
        if what == "released":
            data |= {"reason": "partial"} | self._maybe(amount=amount)
        return self.document(f"authorization.{what}.v1", minutes, **data)

    def _line(self, minutes: int, amount: int) -> Envelope:
        pick = self.chance.choice
        line = {"line_of_credit_id": pick(["L1", "L2", "L3"])}
        what = pick(["set_limit", "reset", "terminate", "create", "create"])
        if what in ("set_limit", "reset"):
            line["credits_limit"] = pick([0, 100, 200, 10_000])
        if what == "reset":
            line["expensed_credits"] = pick([0, 50, 2**63 - 5])
        if what == "terminate" and self.chance.random() < 0.7:
            line["line_of_credit_id"] = "L3"
        if what == "create":
            line |= {"owner_type": "team", "owner_ref": pick([OWNER, OTHER]), "currency": "EUR", "credits_limit": 90}
            line["expense_category"] = pick(["food", "travel", "nope"])
        return self.document(f"line_of_credit.{what}.v1", minutes, **line)

    def _account(self, minutes: int, amount: int) -> Envelope:
        pick = self.chance.choice
        if self.chance.random() < 0.3:
            return self.document("account.close.v1", name=pick(["w1", "w2", "new"]))
        limits = self._maybe(floor={"EUR": pick([-100, 0, 50])}, status=pick(["active", "active", "frozen"]))
        return self.document("account.update.v1", name=pick(["w1", "w2"]), **limits)


def events_of(desk: Desk, documents: Sequence[Envelope]) -> list[Event]:
    events = [desk.event(document) for document in documents]
    for event, document in zip(events, documents, strict=True):
        if isinstance(event.command, AuthorizationRequested | AuthorizationAdvised):
            lines = document["xlines"]
            event.command.resolution = Resolution(frozenset(lines), lines)
            origin: Origin = event.carried
            origin.data = with_resolution(origin.data, {"categories": sorted(lines), "lines": lines})
    return events


async def assert_agree(desk: Desk, book: Book, tenant: str) -> None:
    told: list[tuple[Any, ...]] = []
    entries = 0
    for output in await desk.outputs(tenant):
        data = output["data"]
        cause = data.get("cause", data.get("event", {}))
        if cause.get("source") == "ledgerstream":
            continue
        match output["type"]:
            case "entry.recorded.v1":
                assert data["breaches"] == book.entries[entries]["breaches"], data
                told.append(("entry", entries))
                entries += 1
            case "event.rejected.v1":
                told.append(("rejected", cause["id"], data["code"]))
            case "event.parked.v1":
                told.append(("parked", cause["id"], data["code"]))
            case "command.applied.v1":
                told.append(("applied", cause["id"]))
            case "authorization.decided.v1":
                said = (data["decision"], data["decided_by"], data["reasons"], data["approved_amount"])
                told.append(("decided", cause["id"], *said))
            case "authorization.changed.v1":
                shown = [data[name] for name in ("status", "confirmed", "authorized", "captured", "refunded")]
                told.append(("changed", cause["id"], *shown, data.get("superseded", False)))
    assert told == book.told
    balances = await desk.pool.fetch(
        "SELECT name, b.currency, posted, held, version FROM balances b JOIN accounts USING (shard, account_id)"
        " WHERE tenant_id = $1",
        tenant,
    )
    assert {(row[0], row[1]): tuple(row)[2:] for row in balances} == {
        place: (book.posted[place], book.held[place], version) for place, version in book.versions.items() if version
    }
    lines = await desk.pool.fetch("SELECT * FROM lines_of_credit WHERE tenant_id = $1", tenant)
    assert {
        row["line_of_credit_id"]: (row["credits_limit"], row["expensed_credits"], row["terminated"]) for row in lines
    } == {name: (line["limit"], line["expensed"], line["terminated"]) for name, line in book.lines.items()}
    holds = await desk.pool.fetch("SELECT * FROM holds WHERE tenant_id = $1", tenant)
    assert {row["hold_id"]: (row["status"], row["held"], row["captured"]) for row in holds} == {
        thing[2]: (hold["status"], hold["held"], hold["captured"])
        for thing, hold in book.things.items()
        if thing[0] == "hold"
    }


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_every_history_of_cards_ends_as_the_contract_says(books: Settings, seed: int) -> None:
    chance = random.Random(seed)
    tenant = f"cards.{next(_runs)}"
    model, draw = Model(), Draw(chance, tenant)
    cached = chance.choice([0, 9, 100_000])
    async with desk_on(books, accounts_cached_max=cached) as one, desk_on(books) as two:
        latest = await one.pool.fetchval("SELECT max(nullif(last_recorded_at, '-infinity')) FROM shards")
        one.now = two.now = max(NOON, latest or NOON)
        documents = [*draw.begin(), *(draw.event() for _ in range(EVENTS))]
        half = len(documents) // 2
        for part in (documents[:half], documents[half:]):
            rest = list(part)
            while rest:
                batch, rest = rest[: (size := chance.choice([1, 5, 40]))], rest[size:]
                for document in batch:
                    model.handle(document, one.now)
                desk = chance.choice([one, one, two])
                await desk.apply_events(events_of(desk, batch))
            await assert_agree(one, model.books[tenant], tenant)
            one.now = two.now = one.now + timedelta(hours=2)
            shard = (await one.ledger.shards_of([one.event(documents[0])]))[0]
            # Those of earlier histories on the same database end, too.
            await one.ledger.expire_holds(shard)
            model.books[tenant].expire(one.now)
            await assert_agree(one, model.books[tenant], tenant)
        async with one.pool.acquire() as connection:
            await assert_coherent(connection)
