"""What a resolver is asked, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """Where a card is used."""

    merchant_id: str
    acquirer_id: str
    mcc: str
    name: str
    country: str
    postal_code: str | None = None
    city: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTransaction:
    """A card payment that is to be decided. Units: amounts in minor units of their currency, times in UTC."""

    tenant_id: str
    time: datetime
    provider: str
    external_id: str
    amount: int
    currency: str
    card_id: str
    merchant: Merchant
    account: str | None = None
    hold_amount: int | None = None
    partial_approval: bool = False
    respond_by: datetime | None = None
    expires_at: datetime | None = None
    merchant_amount: int | None = None
    merchant_currency: str | None = None


class ExpenseCategoryResolver(Protocol):
    """Made without arguments; stateless. Whatever it does, only its own payment is declined for it."""

    async def resolve_expense_categories(self, pending: PendingTransaction) -> frozenset[str] | None:
        """The codes of the categories that the payment is of; none or None: it is of no category."""


class LineOfCreditResolver(Protocol):
    """Made without arguments; stateless. Whatever it does, only its own payment is declined for it."""

    async def resolve_lines_of_credit(
        self, categories: frozenset[str], pending: PendingTransaction
    ) -> Mapping[str, str] | None:
        """The id of the line of credit for each category, by the category's code."""


@dataclass(frozen=True, slots=True)
class Question:
    """A payment, and its categories where only its lines are asked for."""

    pending: PendingTransaction
    categories: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What custom code said of one payment; `failed` says why it said nothing that can be used."""

    categories: frozenset[str] = frozenset()
    lines: Mapping[str, str] | None = None
    failed: str | None = None
