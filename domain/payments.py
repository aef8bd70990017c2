"""Payments: captured from a customer, in one capture or several."""

from __future__ import annotations

from dataclasses import dataclass

from domain.accounts import PLATFORM_CASH, PLATFORM_FEES, Account, AccountType, customer_balance
from domain.books import Books
from domain.cash import cash_account
from domain.events import Applied, Command, Event, Outcome, Rejected
from domain.flows import Payment
from domain.keys import Key, natural_key
from domain.needs import Needs
from domain.posting import Draft, Leg, post_fact, refuse_amount, refuse_currency
from domain.rejections import RejectionCode


def payment_key(tenant_id: str, provider: str | None, payment_id: str) -> Key:
    """The key of a payment, all its captures together: what refunds and disputes of it wait for."""
    return natural_key(tenant_id, "payment", provider, payment_id)


@dataclass(slots=True)
class PaymentCaptured(Command):
    """A payment's money has arrived. Amounts in minor units; `fees` of them are the platform's."""

    fact = True

    payment_id: str
    amount: int
    currency: str
    customer_id: str
    capture_id: str | None = None
    fees: int = 0
    cash_account: str = PLATFORM_CASH
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "payment", self.provider, self.payment_id, self.capture_id)

    def arrives(self, tenant_id: str) -> Key:
        return payment_key(tenant_id, self.provider, self.payment_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, self.cash_account))
        needs.accounts.add((tenant_id, customer_balance(self.customer_id)))
        if self.fees:
            needs.accounts.add((tenant_id, PLATFORM_FEES))

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit cash the amount; credit the customer what is left of it after fees, and the platform its fees."""
        tenant_id = event.tenant_id
        refusal = (
            refuse_amount(self.amount)
            or refuse_amount(self.fees, least=0, what="fees")
            or refuse_currency(self.currency)
        )
        if refusal:
            return refusal
        cash = cash_account(books, tenant_id, self.cash_account)
        if isinstance(cash, Rejected):
            return cash
        legs: list[Leg] = [(cash, self.currency, self.amount)]
        if self.amount != self.fees:
            customer = books.account_for(tenant_id, customer_balance(self.customer_id), AccountType.LIABILITY)
            legs.append((customer, self.currency, self.fees - self.amount))
        if self.fees:
            fees = books.account_for(tenant_id, PLATFORM_FEES, AccountType.REVENUE)
            legs.append((fees, self.currency, -self.fees))
        draft = Draft("payment", {"payment_id": self.payment_id}, self.description, self.metadata)
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            self._keep(event, cash, books)
        return outcome

    def _keep(self, event: Event, cash: Account, books: Books) -> None:
        key = event.arrives
        assert key is not None
        payments = books.payments.get(key) or []
        payment = matching(payments, currency=self.currency, customer_id=self.customer_id)
        if payment is None:
            payment = Payment(
                event.tenant_id, self.provider, self.payment_id, self.currency, self.customer_id, cash.account_id
            )
            payments.append(payment)
        payment.captured += self.amount
        books.payments.put(key, payments)


def matching(payments: list[Payment], *, currency: str, customer_id: str) -> Payment | None:
    """Of a payment's captures those by this customer in this currency."""
    for payment in payments:
        if payment.currency == currency and payment.customer_id == customer_id:
            return payment
    return None


def refuse_mismatch(payments: list[Payment], *, currency: str, customer_id: str) -> Rejected | None:
    """The refusal of a refund or dispute whose currency or customer isn't the payment's."""
    named = payments[0].payment_id
    if all(payment.currency != currency for payment in payments):
        return Rejected(
            RejectionCode.CURRENCY_MISMATCH, f"payment {named} was captured in {payments[0].currency}, not {currency}"
        )
    if matching(payments, currency=currency, customer_id=customer_id) is None:
        return Rejected(
            RejectionCode.CUSTOMER_MISMATCH,
            f"payment {named} is by customer {payments[0].customer_id}, not {customer_id}",
        )
    return None
