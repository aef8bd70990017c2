"""Requests about accounts: create, update, close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.accounts import EVERY_CURRENCY, Account, AccountStatus, AccountType, reserved_type
from domain.books import NOT_OPENED, Books
from domain.events import Applied, Command, Event, Outcome, Rejected
from domain.keys import Key, natural_key
from domain.money import AMOUNT_MAX
from domain.needs import Needs
from domain.posting import refuse_currency
from domain.rejections import RejectionCode


class Unset:
    """What an update doesn't mention."""


UNSET: Final = Unset()


def _refuse_limits(*limits: Mapping[str, int]) -> Rejected | None:
    for limit in limits:
        for currency, amount in limit.items():
            if not -AMOUNT_MAX <= amount <= AMOUNT_MAX:
                return Rejected(RejectionCode.AMOUNT_OUT_OF_RANGE, f"limit {amount}; it must be within ±{AMOUNT_MAX}")
            if currency != EVERY_CURRENCY and (refusal := refuse_currency(currency)):
                return refusal
    return None


def _not_found(name: str) -> Rejected:
    return Rejected(RejectionCode.ACCOUNT_NOT_FOUND, f"there is no account {name}")


@dataclass(slots=True)
class AccountCreate(Command):
    """Make an account. Limits are natural minor units by currency, `*` for every currency without its own."""

    fact = False
    taken = RejectionCode.ACCOUNT_EXISTS

    name: str
    type: AccountType
    currency: str | None = None
    parent: str | None = None
    floors: dict[str, int] = field(default_factory=dict)
    ceilings: dict[str, int] = field(default_factory=dict)
    description: str | None = None
    metadata: bytes | None = None

    def natural_key(self, tenant_id: str) -> Key:
        return natural_key(tenant_id, "account", self.name)

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, self.name))
        if self.parent is not None:
            needs.accounts.add((tenant_id, self.parent))
            # A later command of the same batch may put an account below this one.
            needs.ancestors_of.add((tenant_id, self.parent))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = self._refusal(event.tenant_id, books)
        if refusal:
            return refusal
        parent = None if self.parent is None else books.accounts[event.tenant_id, self.parent]
        account = Account(
            NOT_OPENED,
            event.tenant_id,
            self.name,
            self.type,
            self.currency,
            parent_id=None if parent is None else parent.account_id,
            floors=dict(self.floors),
            ceilings=dict(self.ceilings),
            description=self.description,
            metadata=self.metadata,
        )
        books.open_account(account, 1)
        return Applied(result={"account_id": str(account.account_id)})

    def _refusal(self, tenant_id: str, books: Books) -> Rejected | None:
        refusal = None if self.currency is None else refuse_currency(self.currency)
        refusal = refusal or _refuse_limits(self.floors, self.ceilings)
        if refusal:
            return refusal
        if books.account(tenant_id, self.name) is not None:
            return Rejected(RejectionCode.ACCOUNT_EXISTS, f"there is an account {self.name} already")
        needed = reserved_type(self.name)
        if needed is not None and needed is not self.type:
            return Rejected(
                RejectionCode.ACCOUNT_TYPE_MISMATCH, f"{self.name} must be of type {needed}, not {self.type}"
            )
        if self.parent is not None and books.account(tenant_id, self.parent) is None:
            return _not_found(self.parent)
        return None


@dataclass(slots=True)
class AccountUpdate(Command):
    """Change what an account allows and says; what isn't mentioned stays."""

    fact = False

    name: str
    parent: str | Unset | None = UNSET
    floors: dict[str, int] | Unset = UNSET
    ceilings: dict[str, int] | Unset = UNSET
    status: AccountStatus | Unset = UNSET
    description: str | Unset | None = UNSET
    metadata: bytes | Unset | None = UNSET

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, self.name))
        if isinstance(self.parent, str):
            needs.accounts.add((tenant_id, self.parent))
            needs.ancestors_of.add((tenant_id, self.parent))

    def decide(self, event: Event, books: Books) -> Outcome:
        refusal = self._refusal(event.tenant_id, books)
        if refusal:
            return refusal
        account = books.accounts[event.tenant_id, self.name]
        if isinstance(self.parent, str):
            account.parent_id = books.accounts[event.tenant_id, self.parent].account_id
        elif self.parent is None:
            account.parent_id = None
        for attribute in ("floors", "ceilings", "status", "description", "metadata"):
            value: Any = getattr(self, attribute)
            if value is not UNSET:
                setattr(account, attribute, value)
        account.guard()
        books.changed_accounts[account.account_id] = account
        return Applied(result={"account_id": str(account.account_id)})

    def _refusal(self, tenant_id: str, books: Books) -> Rejected | None:
        limits = [limit for limit in (self.floors, self.ceilings) if not isinstance(limit, Unset)]
        if refusal := _refuse_limits(*limits):
            return refusal
        account = books.account(tenant_id, self.name)
        if account is None:
            return _not_found(self.name)
        parent = books.account(tenant_id, self.parent) if isinstance(self.parent, str) else None
        if isinstance(self.parent, str) and parent is None:
            return _not_found(self.parent)
        if account.status is AccountStatus.CLOSED:
            return Rejected(RejectionCode.ACCOUNT_CLOSED, f"{self.name} is closed")
        if parent is not None and (parent is account or account in books.ancestors(parent)):
            return Rejected(
                RejectionCode.ACCOUNT_IN_CYCLE, f"{self.name} stands above {parent.name} and can't be put below it"
            )
        return None


@dataclass(slots=True)
class AccountClose(Command):
    """Close an empty account for good; closing it again changes nothing."""

    fact = False

    name: str

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts.add((tenant_id, self.name))

    def decide(self, event: Event, books: Books) -> Outcome:
        account = books.account(event.tenant_id, self.name)
        if account is None:
            return _not_found(self.name)
        if account.status is not AccountStatus.CLOSED:
            if not account.is_empty:
                return Rejected(
                    RejectionCode.ACCOUNT_NOT_EMPTY, f"{self.name} has a balance, a hold or a pending amount"
                )
            account.status = AccountStatus.CLOSED
            account.guard()
            books.changed_accounts[account.account_id] = account
        return Applied(result={"account_id": str(account.account_id)})
