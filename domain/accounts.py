"""Accounts and their balances: what there is, whose direction is normal, what may not be crossed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from domain.ids import AccountId

EVERY_CURRENCY = "*"
"""The key of a floor or ceiling that is for each currency without one of its own."""


class AccountType(StrEnum):
    ASSET = "asset"
    LIABILITY = "liability"
    EQUITY = "equity"
    REVENUE = "revenue"
    EXPENSE = "expense"


class AccountStatus(StrEnum):
    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


NORMAL_SIGN = {
    AccountType.ASSET: 1,
    AccountType.EXPENSE: 1,
    AccountType.LIABILITY: -1,
    AccountType.EQUITY: -1,
    AccountType.REVENUE: -1,
}
"""+1 where a debit is the normal direction, −1 where a credit is: natural = sign · posted."""

PLATFORM_CASH = "platform:cash"
PLATFORM_FEES = "platform:fees"
PLATFORM_DISPUTES_HELD = "platform:disputes_held"
PLATFORM_DISPUTE_FEES = "platform:dispute_fees"
PLATFORM_DISPUTE_LOSSES = "platform:dispute_losses"

_RESERVED_NAMES = {
    PLATFORM_CASH: AccountType.ASSET,
    PLATFORM_FEES: AccountType.REVENUE,
    PLATFORM_DISPUTES_HELD: AccountType.ASSET,
    PLATFORM_DISPUTE_FEES: AccountType.EXPENSE,
    PLATFORM_DISPUTE_LOSSES: AccountType.EXPENSE,
}
_RESERVED_PREFIXES = {
    "customer_balance": AccountType.LIABILITY,
    "merchant_settlement": AccountType.LIABILITY,
    "subledger": AccountType.ASSET,
    "subledger_contra": AccountType.EQUITY,
    "fx": AccountType.EQUITY,
}


def reserved_type(name: str) -> AccountType | None:
    """The type that an account of this name must have, because events make accounts of such names; None: any."""
    reserved = _RESERVED_NAMES.get(name)
    if reserved is not None:
        return reserved
    prefix, _, rest = name.partition(":")
    return _RESERVED_PREFIXES.get(prefix) if rest else None


def customer_balance(customer_id: str) -> str:
    return f"customer_balance:{customer_id}"


def merchant_settlement(merchant_id: str) -> str:
    return f"merchant_settlement:{merchant_id}"


@dataclass(slots=True)
class Balance:
    """One account's balance in one currency, in minor units: `posted` and `pending` signed, `held` ≥ 0."""

    posted: int = 0
    pending: int = 0
    held: int = 0
    version: int = 0
    updated_at: datetime | None = None
    memo: Any = None
    """What the shell derives from this balance and keeps beside it, such as its stream key; never read here."""


@dataclass(slots=True)
class Account:
    """One account of one tenant, with its balances by currency."""

    account_id: AccountId
    tenant_id: str
    name: str
    type: AccountType
    currency: str | None = None
    parent_id: AccountId | None = None
    floors: dict[str, int] = field(default_factory=dict)
    ceilings: dict[str, int] = field(default_factory=dict)
    status: AccountStatus = AccountStatus.ACTIVE
    description: str | None = None
    metadata: bytes | None = None
    balances: dict[str, Balance] = field(default_factory=dict)
    guarded: bool = field(init=False)
    """Whether anything but plain posting to it needs a second look: a limit, a unit of its own, a status."""

    def __post_init__(self) -> None:
        self.guard()

    def guard(self) -> None:
        """Say anew whether postings to this account need the checks; call after changing what they look at."""
        self.guarded = bool(
            self.floors or self.ceilings or self.currency is not None or self.status is not AccountStatus.ACTIVE
        )

    def natural(self, posted: int) -> int:
        return NORMAL_SIGN[self.type] * posted

    def available(self, currency: str) -> int:
        """What may still be used: natural posted − held."""
        balance = self.balances.get(currency)
        return 0 if balance is None else self.natural(balance.posted) - balance.held

    def floor(self, currency: str) -> int | None:
        return self.floors.get(currency, self.floors.get(EVERY_CURRENCY))

    def ceiling(self, currency: str) -> int | None:
        return self.ceilings.get(currency, self.ceilings.get(EVERY_CURRENCY))

    @property
    def is_empty(self) -> bool:
        return not any(b.posted or b.pending or b.held for b in self.balances.values())
