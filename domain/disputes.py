"""Disputes: money held back by the card network until it is won or lost, wholly or in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domain.accounts import (
    PLATFORM_CASH,
    PLATFORM_DISPUTE_FEES,
    PLATFORM_DISPUTE_LOSSES,
    PLATFORM_DISPUTES_HELD,
    Account,
    AccountType,
    customer_balance,
)
from domain.books import Books
from domain.cash import cash_account
from domain.events import Applied, Command, Event, Outcome, Parked, Rejected
from domain.flows import Dispute
from domain.keys import Key, natural_key
from domain.money import in_major_units
from domain.needs import Needs
from domain.payments import matching, payment_key, refuse_mismatch
from domain.posting import Draft, Leg, post_fact, refuse_amount, refuse_currency
from domain.rejections import RejectionCode


def dispute_key(tenant_id: str, provider: str | None, dispute_id: str) -> Key:
    return natural_key(tenant_id, "dispute", provider, dispute_id)


def _references(dispute_id: str, payment_id: str | None) -> dict[str, str]:
    return {"dispute_id": dispute_id} if payment_id is None else {"dispute_id": dispute_id, "payment_id": payment_id}


def _withheld(books: Books, tenant_id: str, cash: Account, currency: str, *, amount: int, fees: int) -> list[Leg]:
    """The legs of money taken from cash and held, and of what the network charges for it."""
    held = books.account_for(tenant_id, PLATFORM_DISPUTES_HELD, AccountType.ASSET)
    legs: list[Leg] = [(held, currency, amount)]
    if fees:
        charged = books.account_for(tenant_id, PLATFORM_DISPUTE_FEES, AccountType.EXPENSE)
        legs.append((charged, currency, fees))
    legs.append((cash, currency, -amount - fees))
    return legs


def _parked(key: Key, dispute_id: str) -> Parked:
    return Parked(key, f"dispute {dispute_id}", RejectionCode.DISPUTE_NOT_FOUND)


@dataclass(slots=True)
class DisputeOpened(Command):
    """The network took `amount` and `fees`, in minor units, out of our cash until the dispute is decided."""

    fact = True

    dispute_id: str
    amount: int
    currency: str
    customer_id: str
    payment_id: str | None = None
    fees: int = 0
    cash_account: str = PLATFORM_CASH
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return dispute_key(tenant_id, self.provider, self.dispute_id)

    def arrives(self, tenant_id: str) -> Key:
        return self.natural_key(tenant_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts |= {(tenant_id, PLATFORM_DISPUTES_HELD), (tenant_id, PLATFORM_DISPUTE_FEES)}
        # A later event of the same batch may charge this customer with what was lost.
        needs.accounts.add((tenant_id, customer_balance(self.customer_id)))
        if self.payment_id is None:
            needs.accounts.add((tenant_id, self.cash_account))
        else:
            needs.payments.add(payment_key(tenant_id, self.provider, self.payment_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit what is held and the fees, credit the cash that the payment went to."""
        refusal = (
            refuse_amount(self.amount)
            or refuse_amount(self.fees, least=0, what="fees")
            or refuse_amount(self.amount + self.fees, what="amount and fees")
            or refuse_currency(self.currency)
        )
        if refusal:
            return refusal
        cash = self._cash(event.tenant_id, books)
        if isinstance(cash, Rejected | Parked):
            return cash
        draft = Draft("dispute_opened", _references(self.dispute_id, self.payment_id), self.description, self.metadata)
        legs = _withheld(books, event.tenant_id, cash, self.currency, amount=self.amount, fees=self.fees)
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            dispute = Dispute(
                event.tenant_id,
                self.provider,
                self.dispute_id,
                self.payment_id,
                self.currency,
                self.customer_id,
                cash.account_id,
                held=self.amount,
            )
            books.disputes.put(self.natural_key(event.tenant_id), dispute)
        return outcome

    def _cash(self, tenant_id: str, books: Books) -> Account | Rejected | Parked:
        if self.payment_id is None:
            return cash_account(books, tenant_id, self.cash_account)
        key = payment_key(tenant_id, self.provider, self.payment_id)
        payments = books.payments.get(key)
        if not payments:
            return Parked(key, f"payment {self.payment_id}", RejectionCode.PAYMENT_NOT_FOUND)
        refusal = refuse_mismatch(payments, currency=self.currency, customer_id=self.customer_id)
        if refusal:
            return refusal
        payment = matching(payments, currency=self.currency, customer_id=self.customer_id)
        assert payment is not None
        return books.accounts_by_id[payment.cash_account_id]


@dataclass(slots=True)
class DisputeSettled(Command):
    """A dispute, or a part of it, was won or lost; without `amount` all that is still held."""

    fact = True

    dispute_id: str
    won: bool
    outcome_id: str | None = None
    amount: int | None = None
    charge_to: Literal["customer", "platform"] = "customer"
    """Who bears a loss."""
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    @property
    def kind(self) -> str:
        return "dispute_won" if self.won else "dispute_lost"

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, self.kind, self.provider, self.dispute_id, self.outcome_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts |= {(tenant_id, PLATFORM_DISPUTES_HELD), (tenant_id, PLATFORM_DISPUTE_LOSSES)}
        needs.disputes.add(dispute_key(tenant_id, self.provider, self.dispute_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit cash if it was won, else who bears the loss; credit what is held."""
        refusal = None if self.amount is None else refuse_amount(self.amount)
        if refusal:
            return refusal
        key = dispute_key(event.tenant_id, self.provider, self.dispute_id)
        dispute = books.disputes.get(key)
        if dispute is None:
            return _parked(key, self.dispute_id)
        amount = dispute.held if self.amount is None else self.amount
        if dispute.held == 0:
            return Rejected(RejectionCode.DISPUTE_CLOSED, f"nothing of dispute {self.dispute_id} is held any more")
        if amount > dispute.held:
            return Rejected(
                RejectionCode.DISPUTE_AMOUNT_EXCEEDED,
                f"{in_major_units(amount, dispute.currency)}: of dispute {self.dispute_id} only"
                f" {in_major_units(dispute.held, dispute.currency)} is still held",
            )
        # Opening the dispute made it.
        held = books.accounts[event.tenant_id, PLATFORM_DISPUTES_HELD]
        draft = Draft(self.kind, _references(self.dispute_id, dispute.payment_id), self.description, self.metadata)
        legs = [(self._debited(dispute, books), dispute.currency, amount), (held, dispute.currency, -amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            dispute.held -= amount
            books.disputes.put(key, dispute)
        return outcome

    def _debited(self, dispute: Dispute, books: Books) -> Account:
        if self.won:
            return books.accounts_by_id[dispute.cash_account_id]
        if self.charge_to == "platform":
            return books.account_for(dispute.tenant_id, PLATFORM_DISPUTE_LOSSES, AccountType.EXPENSE)
        return books.account_for(dispute.tenant_id, customer_balance(dispute.customer_id), AccountType.LIABILITY)


@dataclass(slots=True)
class DisputeReopened(Command):
    """A decided dispute goes on: `amount` is held again, in the dispute's own currency."""

    fact = True

    dispute_id: str
    reopening_id: str
    amount: int
    fees: int = 0
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "dispute_reopened", self.provider, self.dispute_id, self.reopening_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts |= {(tenant_id, PLATFORM_DISPUTES_HELD), (tenant_id, PLATFORM_DISPUTE_FEES)}
        needs.disputes.add(dispute_key(tenant_id, self.provider, self.dispute_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = (
            refuse_amount(self.amount)
            or refuse_amount(self.fees, least=0, what="fees")
            or refuse_amount(self.amount + self.fees, what="amount and fees")
        )
        if refusal:
            return refusal
        key = dispute_key(event.tenant_id, self.provider, self.dispute_id)
        dispute = books.disputes.get(key)
        if dispute is None:
            return _parked(key, self.dispute_id)
        refusal = refuse_amount(dispute.held + self.amount, what="the amount held")
        if refusal:
            return refusal
        cash = books.accounts_by_id[dispute.cash_account_id]
        draft = Draft(
            "dispute_reopened", _references(self.dispute_id, dispute.payment_id), self.description, self.metadata
        )
        legs = _withheld(books, event.tenant_id, cash, dispute.currency, amount=self.amount, fees=self.fees)
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            dispute.held += self.amount
            books.disputes.put(key, dispute)
        return outcome
