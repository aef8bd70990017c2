"""May a card payment go ahead? The checks, in their order, against lines of credit and the account."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from domain.accounts import Account, AccountStatus
from domain.books import Books
from domain.events import Event
from domain.money import AMOUNT_MAX
from domain.reservations import LineOfCredit, Resolution, category_key, line_key

if TYPE_CHECKING:
    from domain.authorizations import AuthorizationRequested

REASONS = (
    "no_expense_category",
    "expense_category_not_found",
    "no_line_of_credit",
    "currency_mismatch",
    "insufficient_credits",
    "account_not_found",
    "account_frozen",
    "account_closed",
    "insufficient_balance",
)
"""In the order in which the checks are made: the first that fails is the reason."""

_SHORTAGES = frozenset({"insufficient_credits", "insufficient_balance"})


@dataclass(slots=True)
class Verdict:
    """What is said to a request. `lines`: all that were found, expensed or not.

    `approved_amount`: None if it is declined; `hold_amount`: for its account, if it names one.
    """

    approved_amount: int | None
    hold_amount: int = 0
    reason: str | None = None
    reasons: tuple[str, ...] = ()
    lines: list[LineOfCredit] = field(default_factory=list)


def judge(request: AuthorizationRequested, event: Event, books: Books) -> Verdict:
    """Decide a request; nothing is touched."""
    lines, failed = find_lines(event.tenant_id, books, request.resolution, request.currency)
    if request.respond_by is not None and books.recorded_at > request.respond_by:
        return Verdict(None, reason="expired_before_decision", reasons=("expired_before_decision",), lines=lines)
    if request.resolution.failed:
        return Verdict(None, reason="resolver_failed", reasons=("resolver_failed",))
    if request.resolution.off and request.account is None:
        failed.add("no_line_of_credit")
    room = AMOUNT_MAX
    if not failed and lines:
        room = min(line.available for line in lines)
        if request.amount and room < request.amount:
            failed.add("insufficient_credits")
    hold_amount = request.amount if request.hold_amount is None else request.hold_amount
    if request.account is not None:
        account = books.account(event.tenant_id, request.account)
        if account is None:
            failed.add("account_not_found")
        else:
            room = min(room, _check_account(account, request.currency, hold_amount, failed))
    if not failed:
        return Verdict(request.amount, hold_amount, lines=lines)
    reasons = tuple(reason for reason in REASONS if reason in failed)
    approved = min(room, request.amount)
    if request.partial_approval and failed <= _SHORTAGES and approved > 0:
        return Verdict(approved, approved, reason="partial", reasons=reasons, lines=lines)
    return Verdict(None, reason=reasons[0], reasons=reasons, lines=lines)


def find_lines(
    tenant_id: str, books: Books, resolution: Resolution, currency: str
) -> tuple[list[LineOfCredit], set[str]]:
    """The lines of credit that the resolvers named, and which of the first three checks fail; each needs the last."""
    if resolution.off:
        return [], set()
    categories = sorted(resolution.categories or ())
    if not categories:
        return [], {"no_expense_category"}
    failed: set[str] = set()
    if any(category_key(tenant_id, code) not in books.categories for code in categories):
        failed.add("expense_category_not_found")
    named = resolution.lines or {}
    found: dict[str, LineOfCredit] = {}
    for code in categories:
        line_id = named.get(code)
        line = None if line_id is None else books.lines.get(line_key(tenant_id, line_id))
        if line is not None and not line.terminated:
            found[line.line_of_credit_id] = line
        elif not failed:
            failed.add("no_line_of_credit")
    lines = list(found.values())
    if not failed and any(line.currency != currency for line in lines):
        failed.add("currency_mismatch")
    return lines, failed


def _check_account(account: Account, currency: str, hold_amount: int, failed: set[str]) -> int:
    """Add what speaks against holding so much on an account; gives how much could be held."""
    if account.currency is not None and account.currency != currency:
        failed.add("currency_mismatch")
    if account.status is AccountStatus.FROZEN:
        failed.add("account_frozen")
    if account.status is AccountStatus.CLOSED:
        failed.add("account_closed")
    room = account.available(currency) - (account.floor(currency) or 0)
    balance = account.balances.get(currency)
    held = 0 if balance is None else balance.held
    # What can't be counted can't be held either.
    room = min(room, AMOUNT_MAX - held, account.available(currency) + AMOUNT_MAX)
    if hold_amount and room < hold_amount:
        failed.add("insufficient_balance")
    return room
