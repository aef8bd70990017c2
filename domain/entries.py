"""Requests to post entries by hand, and to reverse them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.accounts import Account
from domain.books import Books
from domain.events import Applied, Command, Event, Outcome, Rejected
from domain.ids import EntryId
from domain.keys import Key, natural_key
from domain.money import AMOUNT_MAX
from domain.needs import Needs
from domain.posting import Change, Draft, Leg, breaches_of, net_changes, record, refuse_currency, refuse_overflow
from domain.rejections import RejectionCode

FUTURE_TOLERANCE = timedelta(minutes=5)
"""How far ahead of the ledger's clock an entry may be effective."""


@dataclass(slots=True)
class RequestedPosting:
    """One leg asked for: debit positive, credit negative, minor units."""

    account: str
    amount: int
    currency: str
    expect_version: int | None = None


@dataclass(slots=True)
class EntryPost(Command):
    """Post a balanced entry between accounts that exist, if nothing speaks against it."""

    fact = False

    postings: list[RequestedPosting]
    references: dict[str, str] = field(default_factory=dict)
    description: str | None = None
    metadata: bytes | None = None
    effective_at: datetime | None = None

    def natural_key(self, tenant_id: str) -> Key | None:
        return None

    def needs(self, tenant_id: str, needs: Needs) -> None:
        needs.accounts |= {(tenant_id, posting.account) for posting in self.postings}

    def decide(self, event: Event, books: Books) -> Outcome:
        effective_at = self.effective_at or event.occurred_at
        refusal = _refuse_legs(self.postings) or _refuse_future(effective_at, books)
        if refusal:
            return refusal
        legs: list[Leg] = []
        for posting in self.postings:
            account = books.account(event.tenant_id, posting.account)
            if account is None:
                return Rejected(RejectionCode.ACCOUNT_NOT_FOUND, f"there is no account {posting.account}")
            legs.append((account, posting.currency, posting.amount))
        refusal = _refuse_unbalanced(legs)
        if refusal:
            return refusal
        draft = Draft("posted", self.references, self.description, self.metadata)
        expected = [(leg[0], posting) for leg, posting in zip(legs, self.postings, strict=True)]
        return _post_on_request(event, books, draft, legs, effective_at, expected)


@dataclass(slots=True)
class EntryReverse(Command):
    """Post the opposite of an entry that was posted on request, effective at the event's time."""

    fact = False

    entry_id: str
    """As given: what is no UUID names no entry."""
    description: str | None = None

    def natural_key(self, tenant_id: str) -> Key:
        # One entry, one key, however its id is spelled.
        uuid = _uuid(self.entry_id)
        return natural_key(tenant_id, "reverse", self.entry_id if uuid is None else str(uuid))

    def needs(self, tenant_id: str, needs: Needs) -> None:
        uuid = _uuid(self.entry_id)
        if uuid is not None:
            needs.entries.add(uuid)

    def decide(self, event: Event, books: Books) -> Outcome:
        uuid = _uuid(self.entry_id)
        found = None if uuid is None else books.entries.get(EntryId(uuid))
        if found is None or found[0] != event.tenant_id:
            return Rejected(RejectionCode.ENTRY_NOT_FOUND, f"there is no entry {self.entry_id}")
        entry = found[1]
        if entry.kind != "posted":
            return Rejected(
                RejectionCode.ENTRY_NOT_REVERSIBLE, f"entry {self.entry_id} is a {entry.kind}; only entry.post's can be"
            )
        if refusal := _refuse_future(event.occurred_at, books):
            return refusal
        draft = Draft("reversal", entry.references, self.description, None, reverses=entry.entry_id)
        legs = [(posting.account, posting.currency, -posting.amount) for posting in entry.postings]
        return _post_on_request(event, books, draft, legs, event.occurred_at, ())


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _refuse_legs(postings: Sequence[RequestedPosting]) -> Rejected | None:
    if len(postings) < 2:
        return Rejected(RejectionCode.TOO_FEW_POSTINGS, f"{len(postings)} postings; an entry has two or more")
    for posting in postings:
        if posting.amount == 0:
            return Rejected(RejectionCode.INVALID_AMOUNT, f"the posting to {posting.account} is of 0")
    for posting in postings:
        if abs(posting.amount) > AMOUNT_MAX:
            return Rejected(
                RejectionCode.AMOUNT_OUT_OF_RANGE, f"the posting to {posting.account} is of {posting.amount}"
            )
    for posting in postings:
        if refusal := refuse_currency(posting.currency):
            return refusal
    return None


def _refuse_future(effective_at: datetime, books: Books) -> Rejected | None:
    if effective_at <= books.recorded_at + FUTURE_TOLERANCE:
        return None
    return Rejected(
        RejectionCode.EFFECTIVE_AT_IN_FUTURE,
        f"effective at {effective_at.isoformat()}, more than {FUTURE_TOLERANCE} after {books.recorded_at.isoformat()}",
    )


def _refuse_unbalanced(legs: Sequence[Leg]) -> Rejected | None:
    sums: defaultdict[str, int] = defaultdict(int)
    for _, currency, amount in legs:
        sums[currency] += amount
    for currency, total in sums.items():
        if total:
            return Rejected(
                RejectionCode.POSTINGS_NOT_BALANCED, f"the postings in {currency} sum to {total}, not to zero"
            )
    return None


def _post_on_request(
    event: Event,
    books: Books,
    draft: Draft,
    legs: Sequence[Leg],
    effective_at: datetime,
    expected: Sequence[tuple[Account, RequestedPosting]],
) -> Applied | Rejected:
    changes = net_changes(legs)
    refusal = _first_refusal(event, books, changes, effective_at, expected)
    if refusal:
        return refusal
    applied = record(books, event, draft, legs, changes, effective_at=effective_at, breaches=[])
    entry = applied.entry
    assert entry is not None
    books.entries[entry.entry_id] = (event.tenant_id, entry)
    applied.result = {"entry_id": str(entry.entry_id)}
    return applied


_REQUEST_ORDER = (
    RejectionCode.CURRENCY_MISMATCH,
    RejectionCode.ACCOUNT_FROZEN,
    RejectionCode.ACCOUNT_CLOSED,
    RejectionCode.VERSION_CONFLICT,
    RejectionCode.PERIOD_CLOSED,
    RejectionCode.AMOUNT_OUT_OF_RANGE,
    RejectionCode.INSUFFICIENT_BALANCE,
    RejectionCode.BALANCE_OVER_CEILING,
)


def _first_refusal(
    event: Event,
    books: Books,
    changes: Sequence[Change],
    effective_at: datetime,
    expected: Sequence[tuple[Account, RequestedPosting]],
) -> Rejected | None:
    found: dict[RejectionCode, str] = {}
    for change in changes:
        for code, sentence in breaches_of(change):
            found.setdefault(code, sentence)
    for account, posting in expected:
        balance = account.balances.get(posting.currency)
        version = 0 if balance is None else balance.version
        if posting.expect_version is not None and posting.expect_version != version:
            sentence = f"{account.name} in {posting.currency} is at version {version}, not {posting.expect_version}"
            found.setdefault(RejectionCode.VERSION_CONFLICT, sentence)
    closed_through = books.closed_through.get(event.tenant_id)
    if closed_through is not None and effective_at.astimezone(UTC).date() <= closed_through:
        found[RejectionCode.PERIOD_CLOSED] = f"the books are closed through {closed_through}"
    if overflow := refuse_overflow(changes):
        found[overflow.code] = overflow.message
    for code in _REQUEST_ORDER:
        if code in found:
            return Rejected(code, found[code])
    return None
