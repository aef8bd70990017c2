"""Holds, lines of credit and card payments in plain dicts, written from the contract and not from `domain/`.

What the resolvers answered comes with the event, as its attribute `xlines`: line ids by category.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

Event = dict[str, Any]
MOST = 2**63 - 1
WEEK = timedelta(days=7)
LIMITS = ["currency_mismatch", "account_frozen", "account_closed"]
DECLINES = [
    "no_expense_category",
    "expense_category_not_found",
    "no_line_of_credit",
    "currency_mismatch",
    "insufficient_credits",
    "account_not_found",
    "account_frozen",
    "account_closed",
    "insufficient_balance",
]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


class CardBook:
    """What the books of a tenant know of cards; mixed into `tests.model.Book`, whose parts it uses."""

    # Of the whole book.
    accounts: dict[str, dict[str, Any]]
    posted: defaultdict[tuple[str, str], int]
    versions: defaultdict[tuple[str, str], int]
    things: dict[tuple[Any, ...], dict[str, Any]]
    told: list[tuple[Any, ...]]
    now: datetime
    refuse: Any
    wait: Any

    def start_cards(self) -> None:
        self.held: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.lines: dict[str, dict[str, Any]] = {}
        self.categories: set[str] = set()
        self.cards: dict[str, tuple[str, str] | None] = {}
        self.payments_by_card: dict[tuple[str, str], dict[str, Any]] = {}

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _set_aside(self, name: str, currency: str, change: int) -> None:
        """Move what is held, as a request or a fact; the caller has asked whether it may be."""
        if not change:
            return
        place = (name, currency)
        available = self._natural(self.accounts[name], self.posted[place]) - self.held[place] - change  # type: ignore[attr-defined]
        if self.held[place] + change > MOST or abs(available) > MOST:
            raise self.refuse("amount_out_of_range")

    def _hold(self, name: str, currency: str, change: int) -> None:
        if change:
            self.held[name, currency] += change
            self.versions[name, currency] += 1
            self._note(name, currency)  # type: ignore[attr-defined]

    def _may_hold(self, name: str, currency: str, change: int) -> None:
        account, place = self.accounts[name], (name, currency)
        if account["currency"] not in (None, currency):
            raise self.refuse("currency_mismatch")
        if account["status"] != "active":
            raise self.refuse(f"account_{account['status']}")
        self._set_aside(name, currency, change)
        floor = self._limit(account["floor"], currency)  # type: ignore[attr-defined]
        available = self._natural(account, self.posted[place]) - self.held[place] - change  # type: ignore[attr-defined]
        if floor is not None and available < floor:
            raise self.refuse("insufficient_balance")

    # --- holds ------------------------------------------------------------------------------------------------------

    def _pending(self, data: Event) -> dict[str, Any]:
        thing = ("hold", None, data["hold_id"])
        if thing not in self.things:
            raise self.wait(thing, "hold_not_found")
        hold = self.things[thing]
        if hold["status"] != "pending":
            raise self.refuse("hold_not_pending")
        return hold

    def hold_created(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")  # type: ignore[attr-defined]
        self._unit(data["currency"])  # type: ignore[attr-defined]
        if data["account"] not in self.accounts:
            raise self.refuse("account_not_found")
        self._may_hold(data["account"], data["currency"], data["amount"])
        self._hold(data["account"], data["currency"], data["amount"])
        ends = instant(data["expires_at"]) if "expires_at" in data else instant(event["time"]) + WEEK
        fresh = {"status": "pending", "held": data["amount"], "captured": 0, "ends": ends, "adjusted": None}
        self.things["hold", None, data["hold_id"]] = {"direction": "in"} | data | fresh
        self._applied(event)  # type: ignore[attr-defined]

    def hold_adjusted(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")  # type: ignore[attr-defined]
        hold, when = self._pending(data), instant(event["time"])
        if hold["adjusted"] is None or when >= hold["adjusted"]:
            change = data["amount"] - hold["held"]
            check = self._may_hold if change > 0 else self._set_aside
            check(hold["account"], hold["currency"], change)
            if hold["captured"] + data["amount"] > MOST:
                raise self.refuse("amount_out_of_range")
            self._hold(hold["account"], hold["currency"], change)
            hold |= {"held": data["amount"], "adjusted": when}
            hold["ends"] = instant(data["expires_at"]) if "expires_at" in data else hold["ends"]
        self._applied(event)  # type: ignore[attr-defined]

    def hold_captured(self, event: Event, data: Event) -> None:
        if data.get("amount", 0):
            self._amounts(data, "amount")  # type: ignore[attr-defined]
        hold = self._pending(data)
        if self.accounts[hold["account"]]["status"] == "frozen":
            raise self.refuse("account_frozen")
        amount, final = data.get("amount", 0) or hold["held"], data.get("final", True)
        if amount > hold["held"]:
            raise self.refuse("capture_exceeds_hold")
        released = hold["held"] if final else amount
        signed = amount if hold["direction"] == "in" else -amount
        legs = [("platform:cash", hold["currency"], signed), (hold["account"], hold["currency"], -signed)]
        moved = {(hold["account"], hold["currency"]): -released}
        if amount:
            effective = min(instant(event["time"]), self.now)
            references = {"payment_id": hold.get("payment_id")}
            self._request(event, "hold_captured", legs, effective, references, moved=moved)  # type: ignore[attr-defined]
        else:
            self._hold(hold["account"], hold["currency"], -released)
            self._applied(event)  # type: ignore[attr-defined]
        hold["held"] -= released
        hold["captured"] += amount
        hold["status"] = "captured" if final else "pending"

    def hold_voided(self, event: Event, data: Event) -> None:
        hold = self._pending(data)
        self._end(hold, "voided")
        self._applied(event)  # type: ignore[attr-defined]

    def _end(self, hold: dict[str, Any], status: str) -> None:
        self._hold(hold["account"], hold["currency"], -hold["held"])
        hold |= {"held": 0, "status": status}

    # --- categories, lines, cards -----------------------------------------------------------------------------------

    def expense_category_create(self, event: Event, data: Event) -> None:
        if data["code"] in self.categories:
            raise self.refuse("expense_category_exists")
        self.categories.add(data["code"])
        self._applied(event)  # type: ignore[attr-defined]

    def _credits(self, data: Event) -> None:
        for name in ("credits_limit", "expensed_credits"):
            if data.get(name, 0) < 0:
                raise self.refuse("invalid_amount")
            if data.get(name, 0) > MOST:
                raise self.refuse("amount_out_of_range")

    def line_of_credit_create(self, event: Event, data: Event) -> None:
        self._credits(data)
        self._unit(data["currency"])  # type: ignore[attr-defined]
        if data["expense_category"] not in self.categories:
            raise self.refuse("expense_category_not_found")
        owner = (data["owner_type"], data["owner_ref"].lower(), data["expense_category"])
        theirs = [line["owner"] for line in self.lines.values() if not line["terminated"]]
        if data["line_of_credit_id"] in self.lines or owner in theirs:
            raise self.refuse("line_of_credit_exists")
        limits = {"limit": data.get("credits_limit", 0), "expensed": data.get("expensed_credits", 0)}
        line = {"owner": owner, "currency": data["currency"], "terminated": False} | limits
        self.lines[data["line_of_credit_id"]] = line
        self._applied(event)  # type: ignore[attr-defined]

    def _line(self, data: Event) -> dict[str, Any]:
        line = self.lines.get(data["line_of_credit_id"])
        if line is None or line["terminated"]:
            raise self.refuse("line_of_credit_not_found")
        return line

    def line_of_credit_set_limit(self, event: Event, data: Event) -> None:
        self._credits(data)
        self._line(data)["limit"] = data["credits_limit"]
        self._applied(event)  # type: ignore[attr-defined]

    def line_of_credit_reset(self, event: Event, data: Event) -> None:
        self._credits(data)
        self._line(data).update(limit=data["credits_limit"], expensed=data["expensed_credits"])
        self._applied(event)  # type: ignore[attr-defined]

    def line_of_credit_terminate(self, event: Event, data: Event) -> None:
        if data["line_of_credit_id"] not in self.lines:
            raise self.refuse("line_of_credit_not_found")
        self.lines[data["line_of_credit_id"]]["terminated"] = True
        self._applied(event)  # type: ignore[attr-defined]

    def card_assign(self, event: Event, data: Event) -> None:
        self.cards[data["card_id"]] = (data["owner_type"], data["owner_ref"].lower())
        self._applied(event)  # type: ignore[attr-defined]

    def card_unassign(self, event: Event, data: Event) -> None:
        if self.cards.get(data["card_id"]) == (data["owner_type"], data["owner_ref"].lower()):
            self.cards[data["card_id"]] = None
        self._applied(event)  # type: ignore[attr-defined]

    # --- card payments ----------------------------------------------------------------------------------------------

    def _fresh(self, data: Event) -> dict[str, Any]:
        zeros = dict.fromkeys(("authorized", "captured", "refunded", "back", "expensed", "held"), 0)
        place = (data["provider"], data["external_id"])
        fresh = {
            "status": "pending",
            "confirmed": False,
            "lines": [],
            "account": None,
            "currency": None,
            "place": place,
        }
        return self.payments_by_card.get(place, fresh | zeros | {"ends": None, "adjusted": None})

    def _keep_payment(self, event: Event, paid: dict[str, Any], *, superseded: bool = False) -> None:
        self.payments_by_card[paid["place"]] = paid
        self._arrive(paid)
        shown = [paid[name] for name in ("status", "confirmed", "authorized", "captured", "refunded")]
        self.told.append(("changed", event["id"], *shown, superseded))

    def _arrive(self, paid: dict[str, Any]) -> None:
        if paid["status"] != "pending":
            self.things["authorization", *paid["place"]] = paid

    def _checks(self, data: Event) -> None:
        for name in ("amount", "hold_amount"):
            if data.get(name, 0) < 0:
                raise self.refuse("invalid_amount")
            if data.get(name, 0) > MOST:
                raise self.refuse("amount_out_of_range")
        self._unit(data["currency"])  # type: ignore[attr-defined]

    def _settle(self, event: Event, paid: dict[str, Any], expensed: int, held: int, entry: Any = None) -> None:
        """Lines, hold and entry move together, or what can't be counted refuses all three."""
        lines = [self.lines[line_id] for line_id in paid["lines"]]
        more = (expensed if lines else 0) - paid["expensed"]
        if any(line["expensed"] + more > MOST for line in lines):
            raise self.refuse("amount_out_of_range")
        change = held - paid["held"]
        place = (paid["account"], paid["currency"])
        moved = {place: change} if change and paid["account"] is not None else {}
        if entry is not None and entry[1] is not None:
            kind, payer, amount, late = entry
            legs = [(payer, paid["currency"], amount), ("platform:cash", paid["currency"], -amount)]
            made = self.accounts.get(payer) is None
            self._fact(event, kind, legs, moved=moved, late=late, made=payer if made else None)  # type: ignore[attr-defined]
        else:
            for (name, currency), by in moved.items():
                self._set_aside(name, currency, by)
            for (name, currency), by in moved.items():
                self._hold(name, currency, by)
        for line in lines:
            line["expensed"] = max(0, line["expensed"] + more)
        paid |= {"expensed": paid["expensed"] + more, "held": held if paid["account"] is not None else 0}

    def authorization_requested(self, event: Event, data: Event) -> None:
        self._checks(data)
        paid = self._fresh(data)
        if paid["status"] != "pending":
            return self._keep_payment(event, paid)
        lines, failed = self._resolve(event, data)
        hold, room = data.get("hold_amount", data["amount"]), MOST
        if "respond_by" in data and self.now > instant(data["respond_by"]):
            return self._decide(event, data, paid, lines, None, 0, ["expired_before_decision"])
        if lines and not failed:
            room = min(self.lines[line]["limit"] - self.lines[line]["expensed"] for line in lines)
            if 0 < data["amount"] > room:
                failed.add("insufficient_credits")
        if "account" in data:
            room = min(room, self._room(data, hold, failed))
        reasons = [code for code in DECLINES if code in failed]
        if not reasons:
            return self._decide(event, data, paid, lines, data["amount"], hold, [])
        part = min(room, data["amount"])
        if data.get("partial_approval") and failed <= {"insufficient_credits", "insufficient_balance"} and part > 0:
            return self._decide(event, data, paid, lines, part, part, reasons)
        return self._decide(event, data, paid, lines, None, 0, reasons)

    def _resolve(self, event: Event, data: Event) -> tuple[list[str], set[str]]:
        named: dict[str, str] = event["xlines"]
        if not named:
            return [], {"no_expense_category"}
        failed = {"expense_category_not_found"} if not named.keys() <= self.categories else set()
        live = {line for line in named.values() if line in self.lines and not self.lines[line]["terminated"]}
        if not failed and live != set(named.values()):
            failed = {"no_line_of_credit"}
        if not failed and any(self.lines[line]["currency"] != data["currency"] for line in live):
            failed = {"currency_mismatch"}
        return sorted(live, key=lambda line: min(code for code in named if named[code] == line)), failed

    def _room(self, data: Event, hold: int, failed: set[str]) -> int:
        account = self.accounts.get(data["account"])
        if account is None:
            failed.add("account_not_found")
            return 0
        place = (data["account"], data["currency"])
        if account["currency"] not in (None, data["currency"]):
            failed.add("currency_mismatch")
        if account["status"] != "active":
            failed.add(f"account_{account['status']}")
        floor = self._limit(account["floor"], data["currency"]) or 0  # type: ignore[attr-defined]
        available: int = self._natural(account, self.posted[place]) - self.held[place]  # type: ignore[attr-defined]
        if hold and available - hold < floor:
            failed.add("insufficient_balance")
        return available - floor

    def _decide(
        self,
        event: Event,
        data: Event,
        paid: dict[str, Any],
        lines: list[str],
        approved: int | None,
        hold: int,
        reasons: list[str],
        *,
        by: str = "ledger",
    ) -> None:
        account = data.get("account")
        if account is not None and account not in self.accounts:
            account = None
        before = dict(paid)
        if approved is not None:
            paid |= {"currency": data["currency"], "lines": lines, "account": account or paid["account"]}
            try:
                held = 0 if account is None else max(0, hold - paid["captured"])
                self._settle(event, paid, max(approved, paid["captured"]), held)
            except BaseException:
                paid.update(before)
                raise
            ends = instant(data["expires_at"]) if "expires_at" in data else instant(event["time"]) + WEEK
            paid |= {"authorized": approved, "ends": ends}
        paid |= {"currency": data["currency"], "lines": lines, "account": account or paid["account"]}
        paid["status"] = "declined" if approved is None else "approved"
        self.payments_by_card[paid["place"]] = paid
        self._arrive(paid)
        self.told.append(("decided", event["id"], paid["status"], by, reasons, approved or 0))

    def authorization_advised(self, event: Event, data: Event) -> None:
        self._checks(data)
        paid = self._fresh(data)
        if paid["status"] not in ("pending", "declined"):
            return self._keep_payment(event, paid)
        lines, _ = self._resolve(event, data)
        lines = [line for line in lines if self.lines[line]["currency"] == data["currency"]]
        made = data["account"] if "account" in data and data["account"] not in self.accounts else None
        if made is not None:
            self.accounts[made] = self._account(made, "liability")  # type: ignore[attr-defined]
        hold = data.get("hold_amount", data["amount"])
        try:
            return self._decide(event, data, paid, lines, data["amount"], hold, [], by="stand_in")
        except BaseException:
            # What is refused makes no account.
            self.accounts.pop(made or "", None)
            raise

    def _decided(self, data: Event) -> dict[str, Any]:
        paid = self._fresh(data)
        if paid["status"] == "pending":
            raise self.wait(("authorization", *paid["place"]), "authorization_not_found")
        return paid

    def authorization_confirmed(self, event: Event, data: Event) -> None:
        self._keep_payment(event, self._fresh(data) | {"confirmed": True})

    def authorization_adjusted(self, event: Event, data: Event) -> None:
        self._checks(data | {"currency": "EUR"})
        paid, when, amount = self._decided(data), instant(event["time"]), data["amount"]
        if paid["status"] in ("declined", "captured"):
            return self._keep_payment(event, paid)
        if paid["adjusted"] is not None and when < paid["adjusted"]:
            return self._keep_payment(event, paid, superseded=True)
        held = max(0, paid["held"] + amount - paid["authorized"]) if paid["account"] is not None else 0
        self._settle(event, paid, max(0, max(amount, paid["captured"]) - paid["back"]), held)
        if paid["status"] == "released" and amount > paid["captured"]:
            paid |= {"status": "approved", "ends": when + WEEK}
        paid |= {"authorized": amount, "adjusted": when}
        paid["ends"] = instant(data["expires_at"]) if "expires_at" in data else paid["ends"]
        return self._keep_payment(event, paid)

    def authorization_captured(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")  # type: ignore[attr-defined]
        if "currency" in data:
            self._unit(data["currency"])  # type: ignore[attr-defined]
        force, final = data.get("force_post", False), data.get("final", True) or data.get("force_post", False)
        paid = self._fresh(data) if force else self._decided(data)
        known = paid["currency"]
        if None not in (known, data.get("currency")) and known != data["currency"]:
            raise self.refuse("currency_mismatch")
        amount, captured = data["amount"], paid["captured"] + data["amount"]
        if captured > MOST:
            raise self.refuse("amount_out_of_range")
        payer = data.get("account", paid["account"])
        late = paid["status"] in ("captured", "released")
        expensed, held = paid["expensed"], paid["held"]
        if paid["status"] == "approved" or late:
            goes_on = paid["status"] == "approved" and not final
            left = max(0, paid["authorized"] - captured) if goes_on else 0
            expensed = max(0, captured + left - paid["back"])
            held = max(0, held - amount) if goes_on else 0
        paid["currency"] = known or data.get("currency")
        try:
            self._settle(event, paid, expensed, held, ("authorization_captured", payer, amount, late))
        except BaseException:
            paid["currency"] = known
            raise
        status = "approved" if paid["status"] == "approved" and not final else "captured"
        status = "declined" if paid["status"] == "declined" else status
        paid |= {"captured": captured, "account": paid["account"] or payer, "status": status}
        self._keep_payment(event, paid)

    def authorization_refunded(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")  # type: ignore[attr-defined]
        paid, amount = self._decided(data), data["amount"]
        if paid["refunded"] + amount > MOST:
            raise self.refuse("amount_out_of_range")
        back = min(amount, paid["expensed"])
        entry = ("authorization_refunded", paid["account"], -amount, False)
        self._settle(event, paid, paid["expensed"] - back, paid["held"], entry)
        paid |= {"refunded": paid["refunded"] + amount, "back": paid["back"] + back}
        self._keep_payment(event, paid)

    def authorization_released(self, event: Event, data: Event) -> None:
        self._amounts(data, "amount")  # type: ignore[attr-defined]
        paid = self._decided(data)
        if paid["status"] == "approved":
            left, when = max(0, paid["authorized"] - paid["captured"]), instant(event["time"])
            amount = data.get("amount")
            if amount is None or amount >= left:
                self._give_back(event, paid)
                paid["adjusted"] = max(when, paid["adjusted"] or when)
            else:
                rest = paid["authorized"] - amount
                self._settle(event, paid, max(0, rest - paid["back"]), max(0, paid["held"] - amount))
                paid["authorized"] = rest
        self._keep_payment(event, paid)

    def _give_back(self, event: Event, paid: dict[str, Any]) -> None:
        self._settle(event, paid, max(0, paid["captured"] - paid["back"]), 0)
        paid |= {"authorized": paid["captured"], "status": "released"}

    # --- the clock --------------------------------------------------------------------------------------------------

    def expire(self, now: datetime) -> int:
        """Let everything end that is over; how many that were."""
        self.now = max(self.now, now)
        ended = 0
        for thing, hold in self.things.items():
            if thing[0] == "hold" and hold["status"] == "pending" and hold["ends"] <= now:
                self._end(hold, "expired")
                ended += 1
        for paid in self.payments_by_card.values():
            if paid["status"] == "approved" and paid["ends"] <= now:
                self._give_back({}, paid)
                ended += 1
        return ended

    def end_overdue(self, event: Event, now: datetime) -> bool:
        """Let one hold or card payment end, as the clock's event says; whether its time had come."""
        self.now = max(self.now, now)
        named = event["data"]
        paid = None
        if "hold_id" in named:
            ending = self.things.get(("hold", None, named["hold_id"]))
            open_status = "pending"
        else:
            ending = paid = self.payments_by_card.get((named["provider"], named["external_id"]))
            open_status = "approved"
        if ending is None or ending["status"] != open_status:
            return False
        if ending["ends"] > self.now or ending["ends"] != instant(named["expires_at"]):
            return False
        if paid is None:
            self._end(ending, "expired")
            self._applied(event)  # type: ignore[attr-defined]
        else:
            self._give_back(event, paid)
            self._keep_payment(event, paid)
        return True
