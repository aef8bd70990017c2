"""Transfers: from a customer's balance to a merchant's settlement, and back."""

from __future__ import annotations

from dataclasses import dataclass

from domain.accounts import AccountType, customer_balance, merchant_settlement
from domain.books import Books
from domain.events import Applied, Command, Event, Outcome, Parked, Rejected
from domain.flows import Transfer
from domain.keys import Key, natural_key
from domain.money import in_major_units
from domain.needs import Needs
from domain.posting import Draft, post_fact, refuse_amount, refuse_currency
from domain.rejections import RejectionCode


def transfer_key(tenant_id: str, provider: str | None, transfer_id: str) -> Key:
    return natural_key(tenant_id, "transfer", provider, transfer_id)


@dataclass(slots=True)
class TransferCreated(Command):
    """Money moved from a customer to a merchant, in minor units."""

    fact = True

    transfer_id: str
    amount: int
    currency: str
    customer_id: str
    merchant_id: str
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return transfer_key(tenant_id, self.provider, self.transfer_id)

    def arrives(self, tenant_id: str) -> Key:
        return self.natural_key(tenant_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, customer_balance(self.customer_id)))
        needs.accounts.add((tenant_id, merchant_settlement(self.merchant_id)))

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit the customer, credit the merchant."""
        refusal = refuse_amount(self.amount) or refuse_currency(self.currency)
        if refusal:
            return refusal
        tenant_id = event.tenant_id
        customer = books.account_for(tenant_id, customer_balance(self.customer_id), AccountType.LIABILITY)
        merchant = books.account_for(tenant_id, merchant_settlement(self.merchant_id), AccountType.LIABILITY)
        draft = Draft("transfer", {"transfer_id": self.transfer_id}, self.description, self.metadata)
        legs = [(customer, self.currency, self.amount), (merchant, self.currency, -self.amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            transfer = Transfer(
                tenant_id,
                self.provider,
                self.transfer_id,
                self.currency,
                customer_account_id=customer.account_id,
                merchant_account_id=merchant.account_id,
                amount=self.amount,
            )
            books.transfers.put(self.natural_key(tenant_id), transfer)
        return outcome


@dataclass(slots=True)
class TransferReversed(Command):
    """A transfer, or a part of it, went back; without `amount` all that is left."""

    fact = True

    transfer_id: str
    reversal_id: str | None = None
    amount: int | None = None
    provider: str | None = None
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "transfer_reversed", self.provider, self.transfer_id, self.reversal_id)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.transfers.add(transfer_key(tenant_id, self.provider, self.transfer_id))

    def decide(self, event: Event, books: Books) -> Outcome:
        """Debit the merchant, credit the customer."""
        refusal = None if self.amount is None else refuse_amount(self.amount)
        if refusal:
            return refusal
        key = transfer_key(event.tenant_id, self.provider, self.transfer_id)
        transfer = books.transfers.get(key)
        if transfer is None:
            return Parked(key, f"transfer {self.transfer_id}", RejectionCode.TRANSFER_NOT_FOUND)
        left = transfer.amount - transfer.reversed
        amount = left if self.amount is None else self.amount
        if left == 0 or amount > left:
            return Rejected(
                RejectionCode.REVERSAL_EXCEEDS_TRANSFER,
                f"reversal of {in_major_units(amount, transfer.currency)}: of transfer {self.transfer_id} only"
                f" {in_major_units(left, transfer.currency)} is left",
            )
        customer = books.accounts_by_id[transfer.customer_account_id]
        merchant = books.accounts_by_id[transfer.merchant_account_id]
        draft = Draft("transfer_reversed", {"transfer_id": self.transfer_id}, self.description, self.metadata)
        legs = [(merchant, transfer.currency, amount), (customer, transfer.currency, -amount)]
        outcome = post_fact(books, event, draft, legs)
        if isinstance(outcome, Applied):
            transfer.reversed += amount
            books.transfers.put(key, transfer)
        return outcome
