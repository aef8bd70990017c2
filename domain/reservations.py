"""What stays open of holds and card payments: parts of balances set aside, and credits that are spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.ids import AccountId, EntryId
from domain.keys import Key, natural_key


class HoldStatus(StrEnum):
    PENDING = "pending"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(slots=True)
class Hold:
    """`amount` is all that was ever set aside and not taken back, `held` what still is, `captured` what was posted."""

    tenant_id: str
    hold_id: str
    account_id: AccountId
    currency: str
    direction: str
    amount: int
    held: int
    expires_at: datetime
    payment_id: str | None = None
    captured: int = 0
    status: HoldStatus = HoldStatus.PENDING
    adjusted_at: datetime | None = None
    entry_ids: list[EntryId] = field(default_factory=list)


class AuthorizationStatus(StrEnum):
    PENDING = "pending"
    DECLINED = "declined"
    APPROVED = "approved"
    CAPTURED = "captured"
    RELEASED = "released"


@dataclass(slots=True)
class Authorization:
    """A card payment. `expensed` is what each of its lines has of it now, `given_back` what refunds gave the lines."""

    tenant_id: str
    provider: str
    external_id: str
    status: AuthorizationStatus = AuthorizationStatus.PENDING
    confirmed: bool = False
    currency: str | None = None
    account_id: AccountId | None = None
    decision: str | None = None
    decided_by: str | None = None
    reason: str | None = None
    reasons: tuple[str, ...] = ()
    amount: int = 0
    approved_amount: int = 0
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    given_back: int = 0
    expensed: int = 0
    held: int = 0
    categories: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    """Ids of the lines of credit that it is expensed on."""
    expires_at: datetime | None = None
    adjusted_at: datetime | None = None

    @property
    def left(self) -> int:
        """What is authorized and not captured yet."""
        return max(0, self.authorized - self.captured) if self.status is AuthorizationStatus.APPROVED else 0


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the resolvers answered, before the lock; journaled with the event, so that it is never asked anew.

    `off`: the category resolver is set to `none`, the account alone decides. `failed`: one raised or took too long.
    """

    categories: frozenset[str] | None = None
    lines: Mapping[str, str] | None = None
    """From a category's code to the id of a line of credit."""
    failed: bool = False
    off: bool = False


@dataclass(slots=True)
class ExpenseCategory:
    """`match` is a JSON array of rules, as given."""

    tenant_id: str
    code: str
    name: str
    description: str | None
    reference: str | None
    match: bytes


@dataclass(slots=True)
class LineOfCredit:
    tenant_id: str
    line_of_credit_id: str
    owner_type: str
    owner_ref: str
    expense_category: str
    currency: str
    credits_limit: int
    expensed_credits: int
    terminated: bool = False

    @property
    def available(self) -> int:
        return self.credits_limit - self.expensed_credits


@dataclass(slots=True)
class Card:
    """Whose a card is; nobody's after it was unassigned."""

    tenant_id: str
    card_id: str
    owner_type: str | None
    owner_ref: str | None


def hold_key(tenant_id: str, hold_id: str) -> Key:
    return natural_key(tenant_id, "hold", hold_id)


def authorization_key(tenant_id: str, provider: str, external_id: str) -> Key:
    return natural_key(tenant_id, "authorization", provider, external_id)


def line_key(tenant_id: str, line_of_credit_id: str) -> Key:
    return natural_key(tenant_id, "line_of_credit", line_of_credit_id)


def line_owner_key(tenant_id: str, owner_type: str, owner_ref: str, expense_category: str) -> Key:
    """The key of the one line that an owner may have for a category."""
    return natural_key(tenant_id, "line_owner", owner_type, owner_ref.lower(), expense_category)


def category_key(tenant_id: str, code: str) -> Key:
    return natural_key(tenant_id, "expense_category", code)


def card_key(tenant_id: str, card_id: str) -> Key:
    return natural_key(tenant_id, "card", card_id)
