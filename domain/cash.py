"""Where money comes from and goes to: an asset account, `platform:cash` unless the event names another."""

from __future__ import annotations

from domain.accounts import Account, AccountType, reserved_type
from domain.books import Books
from domain.events import Rejected
from domain.rejections import RejectionCode


def cash_account(books: Books, tenant_id: str, name: str) -> Account | Rejected:
    """The account of this name, opened if need be; refused if it is no asset."""
    account = books.account_for(tenant_id, name, reserved_type(name) or AccountType.ASSET)
    if account.type is AccountType.ASSET:
        return account
    return Rejected(
        RejectionCode.ACCOUNT_TYPE_MISMATCH, f"{name} is an account of type {account.type}; cash must be an asset"
    )
