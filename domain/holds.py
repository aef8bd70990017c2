"""Holds: parts of an account's available balance set aside, until they are captured, voided or expired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.accounts import PLATFORM_CASH, Account, AccountStatus
from domain.books import Books
from domain.cash import cash_account
from domain.events import Applied, Command, Event, Outcome, Parked, Rejected
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.posting import (
    Change,
    Draft,
    Leg,
    breaches_of,
    move_held,
    net_changes,
    record,
    refuse_amount,
    refuse_currency,
    refuse_overflow,
)
from domain.rejections import RejectionCode
from domain.reservations import Hold, HoldStatus, hold_key

REFUSALS = (
    RejectionCode.CURRENCY_MISMATCH,
    RejectionCode.ACCOUNT_FROZEN,
    RejectionCode.ACCOUNT_CLOSED,
    RejectionCode.PERIOD_CLOSED,
    RejectionCode.AMOUNT_OUT_OF_RANGE,
    RejectionCode.INSUFFICIENT_BALANCE,
    RejectionCode.BALANCE_OVER_CEILING,
)
"""What a hold's account may have against it, in the order in which it is refused."""


@dataclass(slots=True)
class HoldCreated(Command):
    """Set a part of an account's available balance aside."""

    fact = False

    hold_id: str
    account: str
    amount: int
    currency: str
    direction: str = "in"
    payment_id: str | None = None
    expires_at: datetime | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return hold_key(tenant_id, self.hold_id)

    def arrives(self, tenant_id: str) -> Key:
        return hold_key(tenant_id, self.hold_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, self.account))
        # Those that were parked for it may post.
        needs.accounts.add((tenant_id, PLATFORM_CASH))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.amount) or refuse_currency(self.currency)
        if refusal:
            return refusal
        account = books.account(event.tenant_id, self.account)
        if account is None:
            return Rejected(RejectionCode.ACCOUNT_NOT_FOUND, f"there is no account {self.account}")
        changes = net_changes((), [(account, self.currency, self.amount)])
        refusal = _first_refusal(changes)
        if refusal:
            return refusal
        hold = Hold(
            event.tenant_id,
            self.hold_id,
            account.account_id,
            self.currency,
            self.direction,
            self.amount,
            self.amount,
            self.expires_at or event.occurred_at + books.hold_expiry,
            self.payment_id,
        )
        return _applied(event, books, hold, Applied(changes=move_held(books, changes)))


@dataclass(slots=True)
class HoldAdjusted(Command):
    """Hold more or less than before; one older than the last applied one changes nothing."""

    fact = False

    hold_id: str
    adjustment_id: str
    amount: int
    expires_at: datetime | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "adjust", self.hold_id, self.adjustment_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.holds.add(hold_key(tenant_id, self.hold_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = refuse_amount(self.amount)
        if refusal:
            return refusal
        hold = _pending(event, books, self.hold_id)
        if not isinstance(hold, Hold):
            return hold
        if hold.adjusted_at is not None and event.occurred_at < hold.adjusted_at:
            applied = _applied(event, books, hold, Applied())
            assert applied.result is not None
            applied.result["superseded"] = True
            return applied
        account = books.accounts_by_id[hold.account_id]
        difference = self.amount - hold.held
        changes = net_changes((), [(account, hold.currency, difference)])
        refusal = _first_refusal(changes) if difference > 0 else refuse_overflow(changes)
        if refusal is None:
            refusal = refuse_amount(hold.captured + self.amount, what="what is held and captured")
        if refusal:
            return refusal
        hold.held = self.amount
        hold.amount = hold.captured + self.amount
        hold.adjusted_at = event.occurred_at
        hold.expires_at = self.expires_at or hold.expires_at
        return _applied(event, books, hold, Applied(changes=move_held(books, changes)))


@dataclass(slots=True)
class HoldCaptured(Command):
    """Post what is held, or a part of it; the last capture releases the rest."""

    fact = False

    hold_id: str
    amount: int | None = None
    final: bool = True
    capture_id: str | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "capture", self.hold_id, self.capture_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.holds.add(hold_key(tenant_id, self.hold_id))
        needs.accounts.add((tenant_id, PLATFORM_CASH))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = None if self.amount is None else refuse_amount(self.amount, least=0)
        if refusal:
            return refusal
        hold = _pending(event, books, self.hold_id)
        if not isinstance(hold, Hold):
            return hold
        account = books.accounts_by_id[hold.account_id]
        if account.status is AccountStatus.FROZEN:
            return Rejected(RejectionCode.ACCOUNT_FROZEN, f"{account.name} is frozen")
        amount = self.amount or hold.held
        if amount > hold.held:
            return Rejected(
                RejectionCode.CAPTURE_EXCEEDS_HOLD,
                f"capture of {amount}: hold {self.hold_id} has only {hold.held} {hold.currency} left",
            )
        applied = self._post(event, books, hold, account, amount)
        if isinstance(applied, Rejected):
            return applied
        hold.held = 0 if self.final else hold.held - amount
        hold.captured += amount
        if self.final:
            hold.status = HoldStatus.CAPTURED
        if applied.entry is not None:
            hold.entry_ids = [*hold.entry_ids, applied.entry.entry_id]
        return _applied(event, books, hold, applied)

    def _post(self, event: Event, books: Books, hold: Hold, account: Account, amount: int) -> Applied | Rejected:
        """Post the captured amount and release what is not held any more; nothing held makes no entry."""
        if amount == 0:
            return Applied()
        released = hold.held if self.final else amount
        held = [(account, hold.currency, -released)]
        cash = cash_account(books, event.tenant_id, PLATFORM_CASH)
        assert not isinstance(cash, Rejected)
        signed = amount if hold.direction == "in" else -amount
        legs: list[Leg] = [(cash, hold.currency, signed), (account, hold.currency, -signed)]
        if hold.direction == "out":
            legs.reverse()
        changes = net_changes(legs, held)
        effective_at = min(event.occurred_at, books.recorded_at)
        refusal = _first_refusal(changes, _closed(event, books, effective_at))
        if refusal:
            return refusal
        references = {} if hold.payment_id is None else {"payment_id": hold.payment_id}
        draft = Draft("hold_captured", references)
        return record(books, event, draft, legs, changes, effective_at=effective_at, breaches=[])


@dataclass(slots=True)
class HoldVoided(Command):
    """Release what is held."""

    fact = False

    hold_id: str

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "void", self.hold_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.holds.add(hold_key(tenant_id, self.hold_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        hold = _pending(event, books, self.hold_id)
        if not isinstance(hold, Hold):
            return hold
        return _applied(event, books, hold, release(books, hold, HoldStatus.VOIDED))


def release(books: Books, hold: Hold, status: HoldStatus) -> Applied:
    """End a hold: what it still holds is available again."""
    account = books.accounts_by_id[hold.account_id]
    changes = move_held(books, net_changes((), [(account, hold.currency, -hold.held)]))
    hold.held = 0
    hold.status = status
    return Applied(changes=changes)


def _pending(event: Event, books: Books, hold_id: str) -> Hold | Rejected | Parked:
    key = hold_key(event.tenant_id, hold_id)
    hold = books.holds.get(key)
    if hold is None:
        return Parked(key, f"hold {hold_id}", RejectionCode.HOLD_NOT_FOUND)
    if hold.status is not HoldStatus.PENDING:
        return Rejected(RejectionCode.HOLD_NOT_PENDING, f"hold {hold_id} is {hold.status}")
    return hold


def _closed(event: Event, books: Books, effective_at: datetime) -> dict[RejectionCode, str]:
    closed_through = books.closed_through.get(event.tenant_id)
    if closed_through is None or effective_at.astimezone(UTC).date() > closed_through:
        return {}
    return {RejectionCode.PERIOD_CLOSED: f"the books are closed through {closed_through}"}


def _first_refusal(changes: Sequence[Change], found: dict[RejectionCode, str] | None = None) -> Rejected | None:
    found = found or {}
    for change in changes:
        for code, sentence in breaches_of(change):
            found.setdefault(code, sentence)
    if overflow := refuse_overflow(changes):
        found[overflow.code] = overflow.message
    for code in REFUSALS:
        if code in found:
            return Rejected(code, found[code])
    return None


def _applied(event: Event, books: Books, hold: Hold, applied: Applied) -> Applied:
    books.holds.put(hold_key(event.tenant_id, hold.hold_id), hold)
    applied.hold_id = hold.hold_id
    applied.result = {"hold_id": hold.hold_id, "status": str(hold.status)}
    if applied.entry is not None:
        applied.result["entry_id"] = str(applied.entry.entry_id)
    return applied
