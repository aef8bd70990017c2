"""Posting: the one place where balances move. Check everything first, then change everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from domain.accounts import Account, AccountStatus, Balance
from domain.books import NOT_OPENED, Books
from domain.events import Applied, BalanceChange, Entry, Event, Posting, Rejected
from domain.ids import EntryId, entry_id
from domain.money import AMOUNT_MAX, EXPONENTS, in_major_units
from domain.rejections import RejectionCode

Leg = tuple[Account, str, int]
"""An account, a currency, and a signed amount: debit positive, credit negative, minor units."""


@dataclass(slots=True)
class Draft:
    """An entry to be: what it says beside its legs."""

    kind: str
    references: Mapping[str, str]
    description: str | None = None
    metadata: bytes | None = None
    reverses: EntryId | None = None


class Change:
    """The net of an entry's legs on one account in one currency."""

    __slots__ = ("account", "amount", "balance", "currency")

    def __init__(self, account: Account, currency: str, amount: int) -> None:
        self.account = account
        self.currency = currency
        self.amount = amount
        self.balance = account.balances.get(currency)

    @property
    def posted_after(self) -> int:
        return self.amount if self.balance is None else self.balance.posted + self.amount

    @property
    def held(self) -> int:
        return 0 if self.balance is None else self.balance.held


def refuse_amount(amount: int, *, least: int = 1, what: str = "amount") -> Rejected | None:
    """The refusal of an amount that is too small or too large for the books, in minor units."""
    if amount < least:
        return Rejected(RejectionCode.INVALID_AMOUNT, f"{what} is {amount}; it must be at least {least}")
    if amount > AMOUNT_MAX:
        return Rejected(RejectionCode.AMOUNT_OUT_OF_RANGE, f"{what} is {amount}; the most is {AMOUNT_MAX}")
    return None


def refuse_currency(currency: str) -> Rejected | None:
    """The refusal of a unit that nobody defined."""
    if currency in EXPONENTS:
        return None
    return Rejected(RejectionCode.UNKNOWN_CURRENCY, f"{currency!r} is not a unit of this ledger")


def post_fact(books: Books, event: Event, draft: Draft, legs: Sequence[Leg]) -> Applied | Rejected:
    """Post what has happened outside, whatever our books think of it; the entry's `breaches` say what that is."""
    changes = net_changes(legs)
    overflow = refuse_overflow(changes)
    if overflow is not None:
        return overflow
    breaches: list[RejectionCode] = []
    for change in changes:
        if change.account.guarded:
            breaches += (code for code, _ in breaches_of(change) if code not in breaches)
    effective_at, late = _first_open_instant(books, event)
    if late:
        breaches.append(RejectionCode.PERIOD_CLOSED)
    breaches.sort(key=_BREACH_ORDER.__getitem__)
    return record(books, event, draft, legs, changes, effective_at=effective_at, breaches=breaches)


def net_changes(legs: Sequence[Leg]) -> list[Change]:
    """What the legs do to each account and currency, in the order in which they are first named."""
    changes: dict[tuple[str, str], Change] = {}
    for account, currency, amount in legs:
        place = (account.name, currency)
        change = changes.get(place)
        if change is None:
            changes[place] = Change(account, currency, amount)
        else:
            change.amount += amount
    return list(changes.values())


def refuse_overflow(changes: Sequence[Change]) -> Rejected | None:
    """The refusal of an entry that would take a balance, or what is available of it, out of 64 bits."""
    for change in changes:
        after = change.posted_after
        available = change.account.natural(after) - change.held
        if not (-AMOUNT_MAX <= after <= AMOUNT_MAX and -AMOUNT_MAX <= available <= AMOUNT_MAX):
            return Rejected(
                RejectionCode.AMOUNT_OUT_OF_RANGE,
                f"the balance of {change.account.name} in {change.currency} would be {after}; the most is {AMOUNT_MAX}",
            )
    return None


BREACHES = (
    RejectionCode.CURRENCY_MISMATCH,
    RejectionCode.ACCOUNT_FROZEN,
    RejectionCode.ACCOUNT_CLOSED,
    RejectionCode.PERIOD_CLOSED,
    RejectionCode.INSUFFICIENT_BALANCE,
    RejectionCode.BALANCE_OVER_CEILING,
)
"""What a fact may break and a request may not, in the order in which a request is refused for it."""

_BREACH_ORDER = {code: place for place, code in enumerate(BREACHES)}


def breaches_of(change: Change) -> list[tuple[RejectionCode, str]]:
    """What a change would break on its account, with a sentence for each."""
    account, currency = change.account, change.currency
    found: list[tuple[RejectionCode, str]] = []
    if account.currency is not None and account.currency != currency:
        sentence = f"{account.name} holds {account.currency} only, not {currency}"
        found.append((RejectionCode.CURRENCY_MISMATCH, sentence))
    if account.status is AccountStatus.FROZEN:
        found.append((RejectionCode.ACCOUNT_FROZEN, f"{account.name} is frozen"))
    if account.status is AccountStatus.CLOSED:
        found.append((RejectionCode.ACCOUNT_CLOSED, f"{account.name} is closed"))
    natural_change = account.natural(change.amount)
    natural_after = account.natural(change.posted_after)
    floor, ceiling = account.floor(currency), account.ceiling(currency)
    available = natural_after - change.held
    if floor is not None and natural_change < 0 and available < floor:
        sentence = f"{account.name} would have {in_major_units(available, currency)} available, less than its floor of "
        found.append((RejectionCode.INSUFFICIENT_BALANCE, sentence + in_major_units(floor, currency)))
    if ceiling is not None and natural_change > 0 and natural_after > ceiling:
        sentence = f"{account.name} would have {in_major_units(natural_after, currency)}, more than its ceiling of "
        found.append((RejectionCode.BALANCE_OVER_CEILING, sentence + in_major_units(ceiling, currency)))
    return found


def _first_open_instant(books: Books, event: Event) -> tuple[datetime, bool]:
    """When a fact is effective, and whether its own time is in a closed period."""
    effective_at = min(event.occurred_at, books.recorded_at)
    closed_through = books.closed_through.get(event.tenant_id)
    if closed_through is None or effective_at.astimezone(UTC).date() > closed_through:
        return effective_at, False
    return datetime.combine(closed_through + timedelta(days=1), time.min, UTC), True


def record(
    books: Books,
    event: Event,
    draft: Draft,
    legs: Sequence[Leg],
    changes: Sequence[Change],
    *,
    effective_at: datetime,
    breaches: list[RejectionCode],
) -> Applied:
    """Write an entry into the books. Nothing can refuse it any more."""
    _open_accounts(books, changes)
    after: dict[tuple[str, str], Balance] = {}
    balance_changes = []
    for change in changes:
        account, currency, amount = change.account, change.currency, change.amount
        balance = change.balance
        if balance is None:
            balance = account.balances[currency] = Balance()
        balance.posted += amount
        balance.version += 1
        balance.updated_at = books.recorded_at
        after[account.name, currency] = balance
        balance_changes.append(
            BalanceChange(
                account, currency, balance, amount, 0, 0, balance.posted, balance.pending, balance.held, balance.version
            )
        )
    entry = Entry(
        entry_id=entry_id(books.epoch, books.shard, books.next_seq),
        seq=books.next_seq,
        kind=draft.kind,
        postings=[
            Posting(account, currency, amount, balance.posted, balance.version)
            for account, currency, amount in legs
            for balance in (after[account.name, currency],)
        ],
        effective_at=effective_at,
        occurred_at=event.occurred_at,
        references=draft.references,
        description=draft.description,
        metadata=draft.metadata,
        reverses=draft.reverses,
        breaches=breaches,
    )
    return Applied(entry=entry, changes=balance_changes)


def _open_accounts(books: Books, changes: Sequence[Change]) -> None:
    ordinal = 0
    for change in changes:
        if change.account.account_id == NOT_OPENED:
            ordinal += 1
            books.open_account(change.account, ordinal)
