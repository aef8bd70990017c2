"""What stays open after a money event, for those that follow: what can still be refunded, reversed, won or lost."""

from __future__ import annotations

from dataclasses import dataclass

from domain.ids import AccountId
from domain.keys import Key


@dataclass(slots=True)
class Payment:
    """All captures of one payment by one customer in one currency, and all refunds of them, in minor units.

    A payment that nothing in the batch follows isn't loaded: then these are the batch's own sums, to be added.
    """

    tenant_id: str
    provider: str | None
    payment_id: str
    currency: str
    customer_id: str
    cash_account_id: AccountId
    captured: int = 0
    refunded: int = 0
    loaded: bool = False

    @property
    def refundable(self) -> int:
        return self.captured - self.refunded


@dataclass(slots=True)
class Refund:
    tenant_id: str
    provider: str | None
    refund_id: str
    payment_id: str | None
    payment_key: Key | None
    currency: str
    customer_id: str
    customer_account_id: AccountId
    cash_account_id: AccountId
    amount: int
    failed: bool = False


@dataclass(slots=True)
class Transfer:
    tenant_id: str
    provider: str | None
    transfer_id: str
    currency: str
    customer_account_id: AccountId
    merchant_account_id: AccountId
    amount: int
    reversed: int = 0


@dataclass(slots=True)
class Payout:
    tenant_id: str
    provider: str | None
    payout_id: str
    currency: str
    merchant_account_id: AccountId
    cash_account_id: AccountId
    amount: int
    failed: bool = False


@dataclass(slots=True)
class Dispute:
    """`held` is what of the disputed amount is neither won nor lost yet."""

    tenant_id: str
    provider: str | None
    dispute_id: str
    payment_id: str | None
    currency: str
    customer_id: str
    cash_account_id: AccountId
    held: int
