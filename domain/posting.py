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
    """The net of what an event does to one account in one currency; `held` is what is held after it."""

    __slots__ = ("account", "amount", "balance", "currency", "held", "held_change", "posted_after")

    def __init__(self, account: Account, currency: str, amount: int) -> None:
        self.account = account
        self.currency = currency
        self.amount = amount
        self.held_change = 0
        self.balance = balance = account.balances.get(currency)
        if balance is None:
            self.posted_after, self.held = amount, 0
        else:
            self.posted_after, self.held = balance.posted + amount, balance.held

    def add(self, amount: int) -> None:
        self.amount += amount
        self.posted_after += amount

    def hold(self, amount: int) -> None:
        self.held_change += amount
        self.held += amount


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


def post_fact(
    books: Books,
    event: Event,
    draft: Draft,
    legs: Sequence[Leg],
    *,
    held: Sequence[Leg] = (),
    late: bool = False,
) -> Applied | Rejected:
    """Post what has happened outside, whatever our books think of it; the entry's `breaches` say what that is.

    `held` is by how much holding moves with it; `late`: what it captures isn't held any more.
    """
    changes = net_changes(legs, held)
    overflow = refuse_overflow(changes)
    if overflow is not None:
        return overflow
    breaches: list[RejectionCode] = [RejectionCode.HOLD_NOT_PENDING] if late else []
    for change in changes:
        if change.account.guarded:
            breaches += (code for code, _ in breaches_of(change) if code not in breaches)
    effective_at, closed = _first_open_instant(books, event)
    if closed:
        breaches.append(RejectionCode.PERIOD_CLOSED)
    if breaches:
        breaches.sort(key=_BREACH_ORDER.__getitem__)
    return record(books, event, draft, legs, changes, effective_at=effective_at, breaches=breaches)


def net_changes(legs: Sequence[Leg], held: Sequence[Leg] = ()) -> list[Change]:
    """What legs and moves of what is held do to each account and currency, in the order of their first naming."""
    changes: dict[tuple[str, str], Change] = {}
    for account, currency, amount in legs:
        place = (account.name, currency)
        change = changes.get(place)
        if change is None:
            changes[place] = Change(account, currency, amount)
        else:
            change.add(amount)
    for account, currency, amount in held:
        if amount:
            place = (account.name, currency)
            if place not in changes:
                changes[place] = Change(account, currency, 0)
            changes[place].hold(amount)
    return list(changes.values())


def move_held(books: Books, changes: Sequence[Change]) -> list[BalanceChange]:
    """Move what is held without an entry. Nothing can refuse it any more; that accounts are open is the caller's."""
    return [_move_balance(change, books) for change in changes]


def refuse_overflow(changes: Sequence[Change]) -> Rejected | None:
    """The refusal of an entry that would take a balance, or what is available of it, out of 64 bits."""
    for change in changes:
        natural = change.account.natural(change.posted_after)
        if (
            natural > AMOUNT_MAX
            # Nothing held is less than nothing, so that what isn't too little here isn't without what is held either.
            or natural - change.held < -AMOUNT_MAX
            or abs(change.amount) > AMOUNT_MAX
            or change.held > AMOUNT_MAX
        ):
            return Rejected(
                RejectionCode.AMOUNT_OUT_OF_RANGE,
                f"the balance of {change.account.name} in {change.currency} would be {change.posted_after};"
                f" the most is {AMOUNT_MAX}",
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

_BREACH_ORDER = {code: place for place, code in enumerate((RejectionCode.HOLD_NOT_PENDING, *BREACHES))}


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
    if floor is not None and natural_change < change.held_change and available < floor:
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
    balance_changes = [_move_balance(change, books) for change in changes]
    if len(changes) == len(legs) and not any(change.held_change for change in changes):
        # Each leg is on an account of its own, in the same order: nothing needs to be looked up. Where something is
        # held, too, a change may be of an account that no leg is on.
        postings = [
            Posting(change.account, change.currency, change.amount, moved.posted, moved.version)
            for change, moved in zip(changes, balance_changes, strict=True)
        ]
    else:
        after = {(moved.account.name, moved.currency): moved for moved in balance_changes}
        postings = [
            Posting(account, currency, amount, moved.posted, moved.version)
            for account, currency, amount in legs
            for moved in (after[account.name, currency],)
        ]
    entry = Entry(
        entry_id(books.epoch, books.shard, books.next_seq),
        books.next_seq,
        draft.kind,
        postings,
        effective_at,
        event.occurred_at,
        draft.references,
        draft.description,
        draft.metadata,
        draft.reverses,
        breaches,
    )
    return Applied(entry, balance_changes)


def _move_balance(change: Change, books: Books) -> BalanceChange:
    balance = change.balance
    if balance is None:
        balance = change.account.balances[change.currency] = Balance()
    balance.posted = posted = change.posted_after
    balance.held = change.held
    balance.version = version = balance.version + 1
    balance.updated_at = books.recorded_at
    return BalanceChange(
        change.account,
        change.currency,
        balance,
        change.amount,
        0,
        change.held_change,
        posted,
        balance.pending,
        change.held,
        version,
    )


def _open_accounts(books: Books, changes: Sequence[Change]) -> None:
    ordinal = 0
    for change in changes:
        if change.account.account_id is NOT_OPENED:
            ordinal += 1
            books.open_account(change.account, ordinal)
