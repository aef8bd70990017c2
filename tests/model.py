"""A ledger of plain dicts, written from the contract and not from `domain/`: what Postgres must agree with.

`Model.handle` takes an envelope as it is published and notes in `Book.told`, in order, what a subscriber must see.
Amounts in minor units, debit positive.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.model_cards import CardBook

Event = dict[str, Any]
Leg = tuple[str, str, int]  # account, currency, amount

MOST = 2**63 - 1
UNITS = {"EUR", "USD", "JPY", "KWD"}
CASH, FEES, HELD = "platform:cash", "platform:fees", "platform:disputes_held"
DISPUTE_FEES, LOSSES = "platform:dispute_fees", "platform:dispute_losses"
RESERVED = {CASH: "asset", FEES: "revenue", HELD: "asset", DISPUTE_FEES: "expense", LOSSES: "expense"}
PREFIXES = {"customer_balance:": "liability", "merchant_settlement:": "liability"}
DEFAULTS = {"fees": 0, "cash_account": CASH, "charge_to": "customer", "direction": "in", "final": True}
DEFAULTS |= {"force_post": False, "partial_approval": False, "match": []}
TAKEN = {
    "account.create.v1": "account_exists",
    "tenant.create.v1": "tenant_exists",
    "expense_category.create.v1": "expense_category_exists",
    "line_of_credit.create.v1": "line_of_credit_exists",
}
BREACHES = [
    "currency_mismatch",
    "account_frozen",
    "account_closed",
    "period_closed",
    "insufficient_balance",
    "balance_over_ceiling",
]
NATURAL = {
    "payment.captured.v1": ("payment", "payment_id", "capture_id"),
    "refund.succeeded.v1": ("refund", "refund_id"),
    "refund.failed.v1": ("refund_failed", "refund_id"),
    "transfer.created.v1": ("transfer", "transfer_id"),
    "transfer.reversed.v1": ("transfer_reversed", "transfer_id", "reversal_id"),
    "payout.paid.v1": ("payout", "payout_id"),
    "payout.failed.v1": ("payout_failed", "payout_id"),
    "dispute.opened.v1": ("dispute", "dispute_id"),
    "dispute.won.v1": ("dispute_won", "dispute_id", "outcome_id"),
    "dispute.lost.v1": ("dispute_lost", "dispute_id", "outcome_id"),
    "dispute.reopened.v1": ("dispute_reopened", "dispute_id", "reopening_id"),
    "account.create.v1": ("account", "name"),
    "entry.reverse.v1": ("reverse", "entry_id"),
    "tenant.create.v1": ("tenant",),
    "hold.created.v1": ("hold", "hold_id"),
    "hold.adjusted.v1": ("adjust", "hold_id", "adjustment_id"),
    "hold.captured.v1": ("capture", "hold_id", "capture_id"),
    "hold.voided.v1": ("void", "hold_id"),
    "authorization.requested.v1": ("authorization", "external_id"),
    "authorization.advised.v1": ("authorization_advice", "external_id"),
    "authorization.confirmed.v1": ("authorization", "external_id", "event_id"),
    "authorization.adjusted.v1": ("authorization", "external_id", "event_id"),
    "authorization.captured.v1": ("authorization", "external_id", "event_id"),
    "authorization.refunded.v1": ("authorization", "external_id", "event_id"),
    "authorization.released.v1": ("authorization", "external_id", "event_id"),
    "expense_category.create.v1": ("expense_category", "code"),
    "line_of_credit.create.v1": ("line_of_credit", "line_of_credit_id"),
}


class Refused(Exception):  # noqa: N818
    """The event ends with this code."""


class Waits(Exception):  # noqa: N818
    """The event is parked for a thing, or rejected with the code."""

    def __init__(self, thing: tuple[Any, ...], code: str) -> None:
        self.thing, self.code = thing, code


def is_fact(event: Event) -> bool:
    family, what = event["type"].split(".")[:2]
    if family == "authorization":
        return bool(what != "requested")
    return family in ("payment", "refund", "transfer", "payout", "dispute")


def fingerprint(event: Event) -> str:
    data = {
        name: value
        for name, value in event["data"].items()
        if name not in ("description", "metadata", "failure_code", "respond_by") and DEFAULTS.get(name) != value
    }
    return json.dumps([event["type"].rsplit(".", 1)[0], data], sort_keys=True)


def natural_key(event: Event) -> tuple[Any, ...] | None:
    if (parts := NATURAL.get(event["type"])) is None:
        return None
    data = event["data"]
    return (parts[0], data.get("provider"), *(data.get(name) for name in parts[1:]))


def keys_of(event: Event) -> tuple[tuple[Any, ...], tuple[Any, ...] | None, tuple[Any, ...] | None]:
    """Its delivery, its natural key and its publisher's, where it has them."""
    chosen = event.get("idempotencykey")
    publisher = None if chosen is None else ("publisher", chosen)
    return ("delivery", event["source"], event["id"]), natural_key(event), publisher


def _told_key(event: Event, mark: str) -> tuple[Any, ...]:
    return ("told", event["source"], event["id"], mark)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def type_of_name(name: str) -> str | None:
    return RESERVED.get(name) or next((kind for prefix, kind in PREFIXES.items() if name.startswith(prefix)), None)


class Book(CardBook):
    """The books of one tenant."""

    refuse, wait = Refused, Waits

    def __init__(self) -> None:
        self.start_cards()
        self.exists = False
        self.keys: dict[tuple[Any, ...], str] = {}
        self.accounts: dict[str, dict[str, Any]] = {}
        self.posted: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.versions: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.things: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.payments: defaultdict[tuple[Any, ...], dict[tuple[str, str], dict[str, Any]]] = defaultdict(dict)
        self.waiting: defaultdict[tuple[Any, ...], deque[Event]] = defaultdict(deque)
        self.parked: dict[tuple[str, str], tuple[datetime, str]] = {}
        """By source and id, in the order of parking: since when, and the code if it never comes."""
        self.closed_through: date | None = None
        self.entries: list[dict[str, Any]] = []
        self.entry_numbers: dict[str, int] = {}  # ids are given by the ledger, so the test says which is which
        self.told: list[tuple[Any, ...]] = []
        self.moved: list[tuple[str, str, int, int, int]] = []
        """Each change of a balance: account, currency, and what is posted, held and its version after it."""
        self.given_back: list[Event] = []
        """Parked facts that ended refused."""
        self.duplicates = 0
        self.now = datetime(1970, 1, 1, tzinfo=UTC)

    # --- keys, duplicates, refusals ---------------------------------------------------------------------------------

    def handle(self, event: Event, now: datetime) -> None:
        self.now = max(self.now, now)
        mark = fingerprint(event)
        delivery, natural, publisher = keys_of(event)
        if self.is_duplicate(event, mark):
            self.duplicates += 1
        elif not self._known(event):
            self._first_time(event, mark, delivery, natural, publisher)
        elif self.keys.get(delivery, mark) != mark:
            self._conflict(event, mark, [_told_key(event, mark)], "idempotency_conflict")
        elif self.keys.get(natural or (), mark) != mark and event["type"] in TAKEN:
            self._conflict(event, mark, [delivery, publisher], TAKEN[event["type"]])
        else:
            self._conflict(event, mark, [delivery], "idempotency_conflict")
        self.exists = True

    def is_duplicate(self, event: Event, mark: str | None = None) -> bool:
        """Whether the event, if it came now, would be one that is known."""
        mark = mark or fingerprint(event)
        delivery, _, publisher = keys_of(event)
        known = self._known(event)
        if all(found == mark for found in known.values()):
            return bool(known)
        if known.get(delivery, mark) != mark:
            return _told_key(event, mark) in self.keys
        return delivery in known or (event["type"] in TAKEN and known.get(publisher or ()) == mark)

    def _known(self, event: Event) -> dict[tuple[Any, ...], str]:
        return {key: self.keys[key] for key in keys_of(event) if key is not None and key in self.keys}

    def _conflict(self, event: Event, mark: str, keys: list[Any], code: str) -> None:
        for key in keys:
            if key is not None:
                self.keys.setdefault(key, mark)
        self.told.append(("rejected", event["id"], code))

    def _first_time(self, event: Event, mark: str, delivery: Any, natural: Any, publisher: Any) -> None:
        claimed = [delivery, natural, publisher]
        try:
            self._judge(event)
        except Waits as waits:
            if len(self.waiting[waits.thing]) < 1_000:
                self.waiting[waits.thing].append(event)
                self.parked[event["source"], event["id"]] = (self.now, waits.code)
                self.told.append(("parked", event["id"], waits.code))
            else:
                self.told.append(("rejected", event["id"], "too_many_parked"))
                claimed = [delivery]
        except Refused as refused:
            self.told.append(("rejected", event["id"], str(refused)))
            claimed = [delivery] if is_fact(event) else [delivery, publisher]
            if event["type"] not in TAKEN and not is_fact(event):
                claimed.append(natural)
        self.keys |= {key: mark for key in claimed if key is not None}
        self._resume()

    def _judge(self, event: Event) -> None:
        getattr(self, event["type"].rsplit(".", 1)[0].replace(".", "_"))(event, event["data"])

    def _resume(self) -> None:
        """Whatever came into being frees those that wait for it, in order; they may free others."""
        arrived = deque(self._arrived())
        while arrived:
            thing = arrived.popleft()
            for event in self.waiting.pop(thing):
                del self.parked[event["source"], event["id"]]
                try:
                    self._judge(event)
                except Refused as refused:
                    self._end_refused(event, str(refused))
                arrived += [more for more in self._arrived() if more not in arrived]

    def _end_refused(self, event: Event, code: str) -> None:
        """A parked fact that ends refused gives its keys back and keeps its delivery."""
        self.told.append(("rejected", event["id"], code))
        if is_fact(event):
            self.given_back.append(event)
            self.keys.pop(natural_key(event) or (), None)
            self.keys.pop(("publisher", event.get("idempotencykey")), None)

    def give_up(self, now: datetime, *, patience: timedelta | None = None, only: tuple[str, str] | None = None) -> int:
        """Reject those whose patience is over, or only one (source, id); say how many."""
        self.now = max(self.now, now)
        overdue = [
            place
            for place, (since, _) in self.parked.items()
            if place == only or (patience is not None and since + patience <= self.now)
        ]
        for place in overdue:
            _, code = self.parked.pop(place)
            for queue in self.waiting.values():
                for event in [each for each in queue if (each["source"], each["id"]) == place]:
                    queue.remove(event)
                    self._end_refused(event, code)
        return len(overdue)

    def _arrived(self) -> list[tuple[Any, ...]]:
        """What is there and somebody waits for, in the order in which it was first waited for."""
        there = self.waiting.keys() & self.things.keys()
        there |= {thing for thing in self.waiting.keys() & self.payments.keys() if self.payments[thing]}
        return [thing for thing in self.waiting if thing in there] if there else []

    # --- posting ----------------------------------------------------------------------------------------------------

    def _account(self, name: str, kind: str) -> dict[str, Any]:
        fresh = {"type": kind, "currency": None, "parent": None, "floor": None, "ceiling": None, "status": "active"}
        return self.accounts.get(name, fresh)

    def _natural(self, account: dict[str, Any], amount: int) -> int:
        return amount if account["type"] in ("asset", "expense") else -amount

    def _net(self, legs: list[Leg], moved: dict[tuple[str, str], int] | None = None) -> dict[tuple[str, str], int]:
        net: dict[tuple[str, str], int] = {}
        for name, currency, amount in legs:
            net[name, currency] = net.get((name, currency), 0) + amount
        if any(abs(self.posted[place] + change) > MOST or abs(change) > MOST for place, change in net.items()):
            raise Refused("amount_out_of_range")
        for name, currency in net.keys() | (moved or {}).keys():
            after = self.posted[name, currency] + net.get((name, currency), 0)
            held = self.held[name, currency] + (moved or {}).get((name, currency), 0)
            natural = self._natural(self._account(name, type_of_name(name) or "liability"), after)
            if held > MOST or abs(natural - held) > MOST:
                raise Refused("amount_out_of_range")
        return net

    def _broken(
        self,
        net: dict[tuple[str, str], int],
        effective: datetime,
        moved: dict[tuple[str, str], int] | None = None,
    ) -> list[str]:
        broken = set()
        moved = moved or {}
        for name, currency in net.keys() | moved.keys():
            change, holding = net.get((name, currency), 0), moved.get((name, currency), 0)
            account = self._account(name, type_of_name(name) or "asset")
            after = self._natural(account, self.posted[name, currency] + change)
            natural = self._natural(account, change)
            floor, ceiling = (self._limit(account[limit], currency) for limit in ("floor", "ceiling"))
            if account["currency"] not in (None, currency):
                broken.add("currency_mismatch")
            if account["status"] != "active":
                broken.add(f"account_{account['status']}")
            available = after - self.held[name, currency] - holding
            if floor is not None and natural < holding and available < floor:
                broken.add("insufficient_balance")
            if ceiling is not None and natural > 0 and after > ceiling:
                broken.add("balance_over_ceiling")
        if self.closed_through is not None and effective.date() <= self.closed_through:
            broken.add("period_closed")
        return [code for code in BREACHES if code in broken]

    def _limit(self, limit: Any, currency: str) -> int | None:
        return limit.get(currency) if isinstance(limit, dict) else limit

    def _fact(
        self,
        event: Event,
        kind: str,
        legs: list[Leg],
        *,
        moved: dict[tuple[str, str], int] | None = None,
        late: bool = False,
        made: str | None = None,
        **references: str | None,
    ) -> None:
        legs = [leg for leg in legs if leg[2]]
        net = self._net(legs, moved)
        if made is not None:
            self.accounts[made] = self._account(made, type_of_name(made) or "liability")
        effective = min(instant(event["time"]), self.now)
        breaches = [*(["hold_not_pending"] if late else []), *self._broken(net, effective, moved)]
        if "period_closed" in breaches and self.closed_through is not None:
            after = self.closed_through + timedelta(days=1)
            effective = datetime(after.year, after.month, after.day, tzinfo=UTC)
        self._record(event, kind, legs, net, effective, breaches, references, moved=moved)

    def _record(
        self,
        event: Event,
        kind: str,
        legs: list[Leg],
        net: dict[tuple[str, str], int],
        effective: datetime,
        breaches: list[str],
        references: dict[str, str | None],
        reverses: int | None = None,
        moved: dict[tuple[str, str], int] | None = None,
    ) -> None:
        for name, currency in net.keys() | (moved or {}).keys():
            self.accounts.setdefault(name, self._account(name, type_of_name(name) or "asset"))
            self.posted[name, currency] += net.get((name, currency), 0)
            self.held[name, currency] += (moved or {}).get((name, currency), 0)
            self.versions[name, currency] += 1
            self._note(name, currency)
        data = event["data"]
        entry = {
            "kind": kind,
            "references": {name: value for name, value in references.items() if value is not None},
            "description": data.get("description"),
            "metadata": None if kind == "reversal" else data.get("metadata"),
            "effective_at": effective,
            "occurred_at": instant(event["time"]),
            "recorded_at": self.now,
            "breaches": breaches,
            "cause": event["id"],
            "reverses": reverses,
            "postings": [(*leg, self.posted[leg[:2]], self.versions[leg[:2]]) for leg in legs],
        }
        self.entries.append(entry)
        self.told.append(("entry", len(self.entries) - 1))

    def _note(self, *place: str) -> None:
        name, currency = place
        self.moved.append(
            (name, currency, self.posted[name, currency], self.held[name, currency], self.versions[name, currency])
        )

    def _amounts(self, data: Event, *names: str) -> None:
        for name in names:
            least = 0 if name == "fees" else 1
            if (amount := data.get(name)) is not None and amount < least:
                raise Refused("invalid_amount")
            if amount is not None and amount > MOST:
                raise Refused("amount_out_of_range")

    def _unit(self, currency: str) -> None:
        if currency not in UNITS:
            raise Refused("unknown_currency")

    def _cash(self, data: Event) -> str:
        name: str = data.get("cash_account", CASH)
        if self._account(name, type_of_name(name) or "asset")["type"] != "asset":
            raise Refused("account_type_mismatch")
        return name

    def _thing(self, kind: str, data: Event) -> dict[str, Any]:
        thing = (kind, data.get("provider"), data[f"{kind}_id"])
        if thing not in self.things:
            raise Waits(thing, f"{kind}_not_found")
        return self.things[thing]

    def _keep(self, kind: str, data: Event, **facts: Any) -> None:
        self.things[kind, data.get("provider"), data[f"{kind}_id"]] = dict(data) | facts

    def _payment_of(self, data: Event) -> dict[str, Any] | None:
        if "payment_id" not in data:
            return None
        thing = ("payment", data.get("provider"), data["payment_id"])
        captures = self.payments.get(thing)
        if not captures:
            raise Waits(thing, "payment_not_found")
        if all(currency != data["currency"] for currency, _ in captures):
            raise Refused("currency_mismatch")
        if (data["currency"], data["customer_id"]) not in captures:
            raise Refused("customer_mismatch")
        return captures[data["currency"], data["customer_id"]]

    # --- facts ------------------------------------------------------------------------------------------------------

    def payment_captured(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount", "fees")
        self._unit(data["currency"])
        cash, amount, fees, currency = self._cash(data), data["amount"], data.get("fees", 0), data["currency"]
        customer = f"customer_balance:{data['customer_id']}"
        legs = [(cash, currency, amount), (customer, currency, fees - amount), (FEES, currency, -fees)]
        self._fact(event, "payment", legs, payment_id=data["payment_id"])
        captures = self.payments["payment", data.get("provider"), data["payment_id"]]
        fresh = {"cash": cash, "left": 0}
        captures.setdefault((currency, data["customer_id"]), fresh)["left"] += amount

    def refund_succeeded(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")
        self._unit(data["currency"])
        payment = self._payment_of(data)
        if payment is not None and data["amount"] > payment["left"]:
            raise Refused("refund_exceeds_payment")
        cash = self._cash(data) if payment is None else payment["cash"]
        legs = [
            (f"customer_balance:{data['customer_id']}", data["currency"], data["amount"]),
            (cash, data["currency"], -data["amount"]),
        ]
        self._fact(event, "refund", legs, refund_id=data["refund_id"], payment_id=data.get("payment_id"))
        if payment is not None:
            payment["left"] -= data["amount"]
        self._keep("refund", data, legs=legs, payment=payment)

    def refund_failed(self, event: Event, data: Event) -> None:
        refund = self._thing("refund", data)
        legs = [(name, currency, -amount) for name, currency, amount in reversed(refund["legs"])]
        references = {"refund_id": data["refund_id"], "payment_id": refund.get("payment_id")}
        self._fact(event, "refund_failed", legs, **references)
        if refund["payment"] is not None:
            refund["payment"]["left"] += refund["amount"]

    def transfer_created(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")
        self._unit(data["currency"])
        customer, merchant = f"customer_balance:{data['customer_id']}", f"merchant_settlement:{data['merchant_id']}"
        legs = [(customer, data["currency"], data["amount"]), (merchant, data["currency"], -data["amount"])]
        self._fact(event, "transfer", legs, transfer_id=data["transfer_id"])
        self._keep("transfer", data, customer=customer, merchant=merchant, left=data["amount"])

    def transfer_reversed(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")
        transfer = self._thing("transfer", data)
        amount = data.get("amount", transfer["left"])
        if not 0 < amount <= transfer["left"]:
            raise Refused("reversal_exceeds_transfer")
        currency = transfer["currency"]
        legs = [(transfer["merchant"], currency, amount), (transfer["customer"], currency, -amount)]
        self._fact(event, "transfer_reversed", legs, transfer_id=data["transfer_id"])
        transfer["left"] -= amount

    def payout_paid(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")
        self._unit(data["currency"])
        cash, merchant = self._cash(data), f"merchant_settlement:{data['merchant_id']}"
        legs = [(merchant, data["currency"], data["amount"]), (cash, data["currency"], -data["amount"])]
        self._fact(event, "payout", legs, payout_id=data["payout_id"])
        self._keep("payout", data, legs=legs)

    def payout_failed(self, event: Event, data: Event) -> None:
        payout = self._thing("payout", data)
        legs = [(name, currency, -amount) for name, currency, amount in reversed(payout["legs"])]
        self._fact(event, "payout_failed", legs, payout_id=data["payout_id"])

    def dispute_opened(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount", "fees")
        if data["amount"] + data.get("fees", 0) > MOST:
            raise Refused("amount_out_of_range")
        self._unit(data["currency"])
        payment = self._payment_of(data)
        cash = self._cash(data) if payment is None else payment["cash"]
        legs = self._withheld(data, data["currency"], cash)
        self._fact(event, "dispute_opened", legs, dispute_id=data["dispute_id"], payment_id=data.get("payment_id"))
        self._keep("dispute", data, cash=cash, held=data["amount"])

    def _withheld(self, data: Event, currency: str, cash: str) -> list[Leg]:
        amount, fees = data["amount"], data.get("fees", 0)
        return [(HELD, currency, amount), (DISPUTE_FEES, currency, fees), (cash, currency, -amount - fees)]

    def _settled(self, event: Event, data: Event, kind: str, debited: Callable[[dict[str, Any]], str]) -> None:
        self._amounts(data, "amount")
        dispute = self._thing("dispute", data)
        amount = data.get("amount", dispute["held"])
        if dispute["held"] == 0:
            raise Refused("dispute_closed")
        if amount > dispute["held"]:
            raise Refused("dispute_amount_exceeded")
        legs = [(debited(dispute), dispute["currency"], amount), (HELD, dispute["currency"], -amount)]
        self._fact(event, kind, legs, dispute_id=data["dispute_id"], payment_id=dispute.get("payment_id"))
        dispute["held"] -= amount

    def dispute_won(self, event: Event, data: Event) -> None:
        self._settled(event, data, "dispute_won", lambda dispute: dispute["cash"])

    def dispute_lost(self, event: Event, data: Event) -> None:
        platform = data.get("charge_to") == "platform"
        self._settled(
            event,
            data,
            "dispute_lost",
            lambda dispute: LOSSES if platform else f"customer_balance:{dispute['customer_id']}",
        )

    def dispute_reopened(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount", "fees")
        if data["amount"] + data.get("fees", 0) > MOST:
            raise Refused("amount_out_of_range")
        dispute = self._thing("dispute", data)
        if dispute["held"] + data["amount"] > MOST:
            raise Refused("amount_out_of_range")
        legs = self._withheld(data, dispute["currency"], dispute["cash"])
        references = {"dispute_id": data["dispute_id"], "payment_id": dispute.get("payment_id")}
        self._fact(event, "dispute_reopened", legs, **references)
        dispute["held"] += data["amount"]

    # --- requests ---------------------------------------------------------------------------------------------------

    def _applied(self, event: Event) -> None:
        self.told.append(("applied", event["id"]))

    def account_create(self, event: Event, data: Event) -> None:
        self._limits(data)
        name = data["name"]
        if name in self.accounts:
            raise Refused("account_exists")
        if type_of_name(name) not in (None, data["type"]):
            raise Refused("account_type_mismatch")
        if data.get("parent") is not None and data["parent"] not in self.accounts:
            raise Refused("account_not_found")
        fields = ("currency", "parent", "floor", "ceiling", "description", "metadata")
        self.accounts[name] = {field: data.get(field) for field in fields} | {"type": data["type"], "status": "active"}
        self._applied(event)

    def _limits(self, data: Event) -> None:
        if data.get("currency") is not None:
            self._unit(data["currency"])
        for limit in (data.get("floor"), data.get("ceiling")):
            for currency, amount in limit.items() if isinstance(limit, dict) else [("EUR", limit or 0)]:
                if abs(amount) > MOST:
                    raise Refused("amount_out_of_range")
                self._unit(currency)

    def account_update(self, event: Event, data: Event) -> None:
        self._limits(data)
        account = self.accounts.get(data["name"])
        if account is None or (data.get("parent") is not None and data["parent"] not in self.accounts):
            raise Refused("account_not_found")
        if account["status"] == "closed":
            raise Refused("account_closed")
        above = data.get("parent")
        while above is not None:
            if above == data["name"]:
                raise Refused("account_in_cycle")
            above = self.accounts[above]["parent"]
        account |= {field: value for field, value in data.items() if field != "name"}
        self._applied(event)

    def account_close(self, event: Event, data: Event) -> None:
        account = self.accounts.get(data["name"])
        if account is None:
            raise Refused("account_not_found")
        # Facts may have posted to it since: closing it again is applied all the same.
        amounts = [*self.posted.items(), *self.held.items()]
        holds = any(amount for (name, _), amount in amounts if name == data["name"])
        if holds and account["status"] != "closed":
            raise Refused("account_not_empty")
        account["status"] = "closed"
        self._applied(event)

    def entry_post(self, event: Event, data: Event) -> None:
        postings = data["postings"]
        if len(postings) < 2:
            raise Refused("too_few_postings")
        if any(posting["amount"] == 0 for posting in postings):
            raise Refused("invalid_amount")
        if any(abs(posting["amount"]) > MOST for posting in postings):
            raise Refused("amount_out_of_range")
        for posting in postings:
            self._unit(posting["currency"])
        effective = instant(data.get("effective_at", event["time"]))
        self._not_in_future(effective)
        if any(posting["account"] not in self.accounts for posting in postings):
            raise Refused("account_not_found")
        sums: defaultdict[str, int] = defaultdict(int)
        for posting in postings:
            sums[posting["currency"]] += posting["amount"]
        if any(sums.values()):
            raise Refused("postings_not_balanced")
        legs = [(posting["account"], posting["currency"], posting["amount"]) for posting in postings]
        stale = any(
            posting.get("expect_version", self.versions[leg[:2]]) != self.versions[leg[:2]]
            for posting, leg in zip(postings, legs, strict=True)
        )
        names = ("payment_id", "refund_id", "transfer_id", "payout_id", "dispute_id")
        self._request(event, "posted", legs, effective, {name: data.get(name) for name in names}, stale=stale)

    def entry_reverse(self, event: Event, data: Event) -> None:
        number = self.entry_numbers.get(data["entry_id"])
        if number is None:
            raise Refused("entry_not_found")
        entry = self.entries[number]
        if entry["kind"] != "posted":
            raise Refused("entry_not_reversible")
        effective = instant(event["time"])
        self._not_in_future(effective)
        legs = [(name, currency, -amount) for name, currency, amount, _, _ in entry["postings"]]
        self._request(event, "reversal", legs, effective, entry["references"], reverses=number)

    def _not_in_future(self, effective: datetime) -> None:
        if effective > self.now + timedelta(minutes=5):
            raise Refused("effective_at_in_future")

    def _request(
        self,
        event: Event,
        kind: str,
        legs: list[Leg],
        effective: datetime,
        references: dict[str, str | None],
        *,
        stale: bool = False,
        reverses: int | None = None,
        moved: dict[tuple[str, str], int] | None = None,
    ) -> None:
        order = [*BREACHES[:3], "version_conflict", "period_closed", "amount_out_of_range", *BREACHES[4:]]
        overflow = None
        try:
            net = self._net(legs, moved)
        except Refused as refused:
            overflow, net = str(refused), {}
            for name, currency, amount in legs:
                net[name, currency] = net.get((name, currency), 0) + amount
        broken = [*self._broken(net, effective, moved), *(["version_conflict"] if stale else []), overflow]
        for code in order:
            if code in broken:
                raise Refused(code)
        self._record(event, kind, legs, net, effective, [], references, reverses, moved)
        self._applied(event)

    def period_close(self, event: Event, data: Event) -> None:
        through = date.fromisoformat(data["through"])
        if self.closed_through is not None and through < self.closed_through:
            raise Refused("period_closed")
        self.closed_through = through
        self._applied(event)

    def tenant_create(self, event: Event, data: Event) -> None:
        if self.exists:
            raise Refused("tenant_exists")
        self._applied(event)


class Model:
    """All tenants."""

    def __init__(self) -> None:
        self.books: defaultdict[str, Book] = defaultdict(Book)

    def handle(self, event: Event, now: datetime) -> bool:
        """Handle one event; whether it was a duplicate."""
        book = self.books[event["tenantid"]]
        before = book.duplicates
        book.handle(event, now)
        return book.duplicates > before
