"""Payouts: a merchant's settlement paid out in cash; some fail later and come back."""

from __future__ import annotations

from dataclasses import dataclass

from domain.accounts import PLATFORM_CASH, AccountType, merchant_settlement
from domain.books import Books
from domain.cash import cash_account
from domain.events import Applied, Command, Event, Outcome, Parked, Rejected
from domain.flows import Payout
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.posting import Draft, post_fact, refuse_amount, refuse_currency
from domain.rejections import RejectionCode


def payout_key(tenant_id: str, provider: str | None, payout_id: str) -> Key:
    return natural_key(tenant_id, "payout", provider, payout_id)


@dataclass(slots=True)
class PayoutPaid(Command):
    """Money went out to a merchant, in minor units."""

    fact = True

    payout_id: str
    amount: int
    currency: str
    merchant_id: str
    cash_account: str = PLATFORM_CASH
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return payout_key(tenant_id, self.provider, self.payout_id)

    def arrives(self, tenant_id: str) -> Key:
        return self.natural_key(tenant_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, self.cash_account))
        needs.accounts.add((tenant_id, merchant_settlement(self.merchant_id)))

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit the merchant, credit cash."""
        refusal = refuse_amount(self.amount) or refuse_currency(self.currency)
        if refusal:
            return refusal
        tenant_id = event.tenant_id
        cash = cash_account(books, tenant_id, self.cash_account)
        if isinstance(cash, Rejected):
            return cash
        merchant = books.account_for(tenant_id, merchant_settlement(self.merchant_id), AccountType.LIABILITY)
        draft = Draft("payout", {"payout_id": self.payout_id}, self.description, self.metadata)
        legs = [(merchant, self.currency, self.amount), (cash, self.currency, -self.amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            payout = Payout(
                tenant_id,
                self.provider,
                self.payout_id,
                self.currency,
                merchant_account_id=merchant.account_id,
                cash_account_id=cash.account_id,
                amount=self.amount,
            )
            books.payouts.put(self.natural_key(tenant_id), payout)
        return outcome


@dataclass(slots=True)
class PayoutFailed(Command):
    """A payout came back: the opposite of its entry."""

    fact = True

    payout_id: str
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "payout_failed", self.provider, self.payout_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.payouts.add(payout_key(tenant_id, self.provider, self.payout_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        key = payout_key(event.tenant_id, self.provider, self.payout_id)
        payout = books.payouts.get(key)
        if payout is None:
            return Parked(key, f"payout {self.payout_id}", RejectionCode.PAYOUT_NOT_FOUND)
        merchant = books.accounts_by_id[payout.merchant_account_id]
        cash = books.accounts_by_id[payout.cash_account_id]
        draft = Draft("payout_failed", {"payout_id": self.payout_id}, self.description, self.metadata)
        legs = [(cash, payout.currency, payout.amount), (merchant, payout.currency, -payout.amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            payout.failed = True
            books.payouts.put(key, payout)
        return outcome
