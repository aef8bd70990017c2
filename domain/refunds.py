"""Refunds: money given back to a customer, of a payment or freely; some fail later and come back."""

from __future__ import annotations

from dataclasses import dataclass

from domain.accounts import PLATFORM_CASH, Account, AccountType, customer_balance
from domain.books import Books
from domain.cash import cash_account
from domain.events import Applied, Command, Event, Outcome, Parked, Rejected
from domain.flows import Payment, Refund
from domain.keys import Key, natural_key
from domain.money import in_major_units
from domain.needs import Needs
from domain.payments import matching, payment_key, refuse_mismatch
from domain.posting import Draft, post_fact, refuse_amount, refuse_currency
from domain.rejections import RejectionCode


def refund_key(tenant_id: str, provider: str | None, refund_id: str) -> Key:
    return natural_key(tenant_id, "refund", provider, refund_id)


@dataclass(slots=True)
class RefundSucceeded(Command):
    """Money went back to a customer; with `payment_id`, of that payment, in its currency and to its customer."""

    fact = True

    refund_id: str
    amount: int
    currency: str
    customer_id: str
    payment_id: str | None = None
    cash_account: str = PLATFORM_CASH
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return refund_key(tenant_id, self.provider, self.refund_id)

    def arrives(self, tenant_id: str) -> Key:
        return self.natural_key(tenant_id)

    def payment_key(self, tenant_id: str) -> Key | None:
        return None if self.payment_id is None else payment_key(tenant_id, self.provider, self.payment_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, customer_balance(self.customer_id)))
        key = self.payment_key(tenant_id)
        if key is None:
            needs.accounts.add((tenant_id, self.cash_account))
        else:
            needs.payments.add(key)

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit the customer, credit the cash that the payment went to."""
        refusal = refuse_amount(self.amount) or refuse_currency(self.currency)
        if refusal:
            return refusal
        payment = self._payment(event.tenant_id, books)
        if isinstance(payment, Rejected | Parked):
            return payment
        cash: Account | Rejected
        if payment is None:
            cash = cash_account(books, event.tenant_id, self.cash_account)
            if isinstance(cash, Rejected):
                return cash
        else:
            cash = books.accounts_by_id[payment.cash_account_id]
        customer = books.account_for(event.tenant_id, customer_balance(self.customer_id), AccountType.LIABILITY)
        references = {"refund_id": self.refund_id}
        if self.payment_id is not None:
            references["payment_id"] = self.payment_id
        draft = Draft("refund", references, self.description, self.metadata)
        legs = [(customer, self.currency, self.amount), (cash, self.currency, -self.amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            self._keep(event.tenant_id, books, payment, customer=customer, cash=cash)
        return outcome

    def _payment(self, tenant_id: str, books: Books) -> Payment | Rejected | Parked | None:
        key = self.payment_key(tenant_id)
        if key is None:
            return None
        payments = books.payments.get(key)
        if not payments:
            return Parked(key, f"payment {self.payment_id}", RejectionCode.PAYMENT_NOT_FOUND)
        refusal = refuse_mismatch(payments, currency=self.currency, customer_id=self.customer_id)
        if refusal:
            return refusal
        payment = matching(payments, currency=self.currency, customer_id=self.customer_id)
        assert payment is not None
        if self.amount > payment.refundable:
            return Rejected(
                RejectionCode.REFUND_EXCEEDS_PAYMENT,
                f"refund of {in_major_units(self.amount, self.currency)}: of payment {self.payment_id} only"
                f" {in_major_units(payment.refundable, self.currency)} can still be refunded",
            )
        return payment

    def _keep(self, tenant_id: str, books: Books, payment: Payment | None, *, customer: Account, cash: Account) -> None:
        key = self.payment_key(tenant_id)
        if payment is not None:
            payment.refunded += self.amount
            books.payments.touch(payment_key(tenant_id, self.provider, payment.payment_id))
        refund = Refund(
            tenant_id,
            self.provider,
            self.refund_id,
            self.payment_id,
            key,
            self.currency,
            self.customer_id,
            customer_account_id=customer.account_id,
            cash_account_id=cash.account_id,
            amount=self.amount,
        )
        books.refunds.put(self.natural_key(tenant_id), refund)


@dataclass(slots=True)
class RefundFailed(Command):
    """A refund came back: the opposite of its entry; its amount may be refunded again."""

    fact = True

    refund_id: str
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "refund_failed", self.provider, self.refund_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.refunds.add(refund_key(tenant_id, self.provider, self.refund_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        key = refund_key(event.tenant_id, self.provider, self.refund_id)
        refund = books.refunds.get(key)
        if refund is None:
            return Parked(key, f"refund {self.refund_id}", RejectionCode.REFUND_NOT_FOUND)
        customer = books.accounts_by_id[refund.customer_account_id]
        cash = books.accounts_by_id[refund.cash_account_id]
        references = {"refund_id": self.refund_id}
        if refund.payment_id is not None:
            references["payment_id"] = refund.payment_id
        draft = Draft("refund_failed", references, self.description, self.metadata)
        legs = [(cash, refund.currency, refund.amount), (customer, refund.currency, -refund.amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            refund.failed = True
            books.refunds.put(key, refund)
            _give_back(refund, books)
        return outcome


def _give_back(refund: Refund, books: Books) -> None:
    if refund.payment_key is None:
        return
    payments = books.payments.get(refund.payment_key)
    assert payments is not None, f"the payment of refund {refund.refund_id} is not loaded"
    payment = matching(payments, currency=refund.currency, customer_id=refund.customer_id)
    assert payment is not None, f"refund {refund.refund_id} is of no capture of its payment"
    payment.refunded -= refund.amount
    books.payments.touch(refund.payment_key)
