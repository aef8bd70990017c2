"""Card payments for the demo: each method publishes what a processor says, and reckons what it must come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from consumers.demo_scribe import Scribe
from consumers.demo_trade import CASH

PROVIDER = "cardnet"


class Holder(NamedTuple):
    """Somebody with a card, and the account that it is paid from; `card_id` is nobody's where it was never assigned."""

    name: str
    card_id: str
    account: str | None = None

    @property
    def owner(self) -> dict[str, str]:
        return {"owner_type": "employee", "owner_ref": str(UUID(bytes=self.name.encode().ljust(16, b"\0")))}


class Shop(NamedTuple):
    name: str
    mcc: str
    country: str = "FRA"

    @property
    def merchant(self) -> dict[str, str]:
        ids = {"merchant_id": self.name.lower().replace(" ", "-"), "acquirer_id": "acq-1"}
        return {**ids, "mcc": self.mcc, "name": self.name, "country": self.country}


@dataclass(slots=True)
class _Paid:
    """A card payment as the story reckons it. Amounts in minor units."""

    account: str | None
    lines: tuple[str, ...] = ()
    status: str = "declined"
    authorized: int = 0
    captured: int = 0
    given_back: int = 0
    expensed: int = 0
    held: int = 0


class CardDesk:
    """One issuer of cards in one currency, before its processor."""

    def __init__(self, scribe: Scribe, tenant: str, currency: str) -> None:
        self.scribe, self.tenant, self.currency = scribe, tenant, currency
        self._paid: dict[str, _Paid] = {}
        self._numbers = 0

    # --- who may spend what -----------------------------------------------------------------------------------------

    def category(self, code: str, name: str, *rules: dict[str, Any]) -> None:
        self._command("expense_category.create", code=code, name=name, match=list(rules))

    def line(self, holder: Holder, category: str, limit: int, currency: str | None = None) -> None:
        """Give a cardholder credits for a category; the line's id is made of both."""
        ids = {"line_of_credit_id": f"{holder.name}-{category}", "expense_category": category}
        rest = {"currency": currency or self.currency, "credits_limit": limit}
        self._command("line_of_credit.create", **ids, **rest, **holder.owner)

    def card(self, holder: Holder) -> None:
        self._command("card.assign", card_id=holder.card_id, **holder.owner)

    def close(self, account: str) -> None:
        self._command("account.close", name=account)

    def _command(self, kind: str, **data: Any) -> None:
        self._numbers += 1
        self.scribe.publish(self.tenant, f"{kind}.v1", data, idempotency_key=f"cards-{self._numbers}")
        self.scribe.obeyed()

    # --- may it go ahead? -------------------------------------------------------------------------------------------

    def asks(
        self,
        name: str,
        holder: Holder,
        shop: Shop,
        amount: int,
        *,
        approved: int | None = None,
        lines: Sequence[str] = (),
        why: str = "",
        **more: Any,
    ) -> str:
        """Ask; `approved` of these lines is the answer, for less than was asked because of `why`, or else no."""
        event_id = self._payment("authorization.requested", name, holder, shop, amount, more)
        paid = self._paid[name] = _Paid(holder.account, tuple(lines))
        if approved is None:
            self._decided(f"declined, {why}")
            return event_id
        held = more.get("hold_amount", approved)
        self._approved(paid, approved, held)
        self._decided("approved in part" if why else "approved")
        return event_id

    def advises(self, name: str, holder: Holder, shop: Shop, amount: int, *, lines: Sequence[str]) -> None:
        """The processor has said yes in our place; our own answer to it was no."""
        self._payment("authorization.advised", name, holder, shop, amount, {})
        paid = self._paid[name]
        paid.lines = tuple(lines)
        self._approved(paid, amount, amount)
        self._decided("approved by stand_in")

    def _payment(self, kind: str, name: str, holder: Holder, shop: Shop, amount: int, more: dict[str, Any]) -> str:
        ids = {"provider": PROVIDER, "external_id": name, "card_id": holder.card_id}
        data = {**ids, "amount": amount, "currency": self.currency, "merchant": shop.merchant}
        if holder.account is not None:
            data["account"] = holder.account
        event_id = self.scribe.publish(self.tenant, f"{kind}.v1", data | more)
        self.scribe.titles.setdefault(name, (self.scribe.now, f"{holder.name.capitalize()}, {shop.name}"))
        return event_id

    def _approved(self, paid: _Paid, amount: int, held: int) -> None:
        paid.status, paid.authorized = "approved", amount
        self._settle(paid, amount, held if paid.account is not None else 0)

    def _decided(self, answer: str) -> None:
        self.scribe.expected.decisions[answer] += 1
        self.scribe.expected.outputs["authorization.decided"] += 1

    # --- what becomes of it -----------------------------------------------------------------------------------------

    def confirmed(self, name: str) -> None:
        """Before the request, too."""
        self._later("confirmed", name, "confirmation")

    def adjusted(self, name: str, event_id: str, amount: int) -> None:
        self._later("adjusted", name, event_id, amount=amount)
        paid = self._paid[name]
        difference, paid.authorized = amount - paid.authorized, amount
        self._settle(paid, paid.expensed + difference, paid.held + difference)

    def adjusted_before(self, name: str, event_id: str, amount: int, *, time: str) -> None:
        """One that is older than the last: it changes nothing."""
        self._later("adjusted", name, event_id, time=time, amount=amount)

    def captured(
        self, name: str, event_id: str, amount: int, *, final: bool = True, breaches: Sequence[str] = ()
    ) -> str:
        told = self._later("captured", name, event_id, amount=amount, final=final)
        paid = self._paid[name]
        paid.captured += amount
        left = 0 if final else paid.authorized - paid.captured
        if final:
            paid.status = "captured"
        held = 0 if final else paid.held - amount
        self._settle(paid, paid.captured + left - paid.given_back, held, posted=amount, breaches=breaches)
        return told

    def force_posted(self, name: str, event_id: str, holder: Holder, shop: str, amount: int) -> None:
        """Money that was taken without asking anybody."""
        more: dict[str, Any] = {"force_post": True, "currency": self.currency, "account": holder.account}
        self._later("captured", name, event_id, amount=amount, **more)
        self.scribe.titles[name] = (self.scribe.now, f"{holder.name.capitalize()}, {shop}")
        paid = self._paid[name] = _Paid(holder.account, status="captured")
        self._settle(paid, 0, 0, posted=amount)

    def refunded(self, name: str, event_id: str, amount: int) -> None:
        self._later("refunded", name, event_id, amount=amount)
        paid = self._paid[name]
        back = min(amount, paid.expensed)
        paid.given_back += back
        self._settle(paid, paid.expensed - back, paid.held, posted=-amount)

    def released(self, name: str, event_id: str, reason: str) -> None:
        """All that was not captured."""
        self._later("released", name, event_id, reason=reason)
        self._given_back(name)

    def expired(self, name: str) -> None:
        """The clock gives it back; nothing is published for that."""
        self._given_back(name)
        self.scribe.expires()
        self.scribe.expected.outputs["authorization.changed"] += 1

    def _given_back(self, name: str) -> None:
        paid = self._paid[name]
        paid.status, paid.authorized = "released", paid.captured
        self._settle(paid, paid.captured - paid.given_back, 0)

    def _later(self, what: str, name: str, event_id: str, *, time: str | None = None, **data: Any) -> str:
        """`time` in place of the story's own."""
        ids = {"provider": PROVIDER, "external_id": name, "event_id": event_id}
        self.scribe.expected.outputs["authorization.changed"] += 1
        return self.scribe.publish(
            self.tenant, f"authorization.{what}.v1", ids | data, **({} if time is None else {"time": time})
        )

    def _settle(self, paid: _Paid, expensed: int, held: int, *, posted: int = 0, breaches: Sequence[str] = ()) -> None:
        """Lines have so much of it now, and so much is held; `posted` leaves the account."""
        figures = self.scribe.expected
        for line in paid.lines:
            place = (self.tenant, line, self.currency)
            figures.expensed[place] = figures.expensed.get(place, 0) + expensed - paid.expensed
        if posted and paid.account is not None:
            kind = "authorization_captured" if posted > 0 else "authorization_refunded"
            self.scribe.posted(self.tenant, kind, self.currency, [(paid.account, posted), (CASH, -posted)], breaches)
        elif held != paid.held:
            figures.outputs["balance.changed"] += 1
        if paid.account is not None:
            self.scribe.held(self.tenant, paid.account, self.currency, held - paid.held)
        paid.expensed, paid.held = (expensed if paid.lines else 0), held

    # --- holds ------------------------------------------------------------------------------------------------------

    def holds(self, hold_id: str, account: str, amount: int, *, direction: str = "out", **more: Any) -> None:
        data = {"hold_id": hold_id, "account": account, "amount": amount, "currency": self.currency}
        self._hold("created", data | {"direction": direction} | more)
        self._moved(account, amount)

    def hold_captured(self, hold_id: str, account: str, amount: int, *, capture_id: str) -> None:
        """A part of a hold `out`; the rest stays held."""
        part = {"hold_id": hold_id, "amount": amount, "final": False, "capture_id": capture_id}
        self._hold("captured", part)
        self.scribe.posted(self.tenant, "hold_captured", self.currency, [(account, amount), (CASH, -amount)])
        self.scribe.held(self.tenant, account, self.currency, -amount)
        self.scribe.obeyed()

    def hold_voided(self, hold_id: str, account: str, amount: int) -> None:
        """All of it, which is `amount`."""
        self._hold("voided", {"hold_id": hold_id})
        self._moved(account, -amount)

    def hold_expired(self, account: str, amount: int) -> None:
        """The clock gives it back; nothing is published for that."""
        self._moved(account, -amount)
        self.scribe.expires()

    def _hold(self, what: str, data: dict[str, Any]) -> None:
        self.scribe.publish(self.tenant, f"hold.{what}.v1", data)

    def _moved(self, account: str, change: int) -> None:
        self.scribe.held(self.tenant, account, self.currency, change)
        self.scribe.expected.outputs["balance.changed"] += 1
        self.scribe.obeyed()

    def reckon(self) -> None:
        """How the card payments stand at the end."""
        for paid in self._paid.values():
            self.scribe.expected.card_payments[paid.status] += 1
