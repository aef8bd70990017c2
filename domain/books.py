"""The slice of one shard's books that a batch is decided on, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Generic, TypeVar
from uuid import UUID

from domain.accounts import Account, AccountType
from domain.events import Entry, Event
from domain.flows import Dispute, Payment, Payout, Refund, Transfer
from domain.ids import AccountId, EntryId, account_id
from domain.keys import Key
from domain.reservations import Authorization, Card, ExpenseCategory, Hold, LineOfCredit

Thing = TypeVar("Thing")

NOT_OPENED = AccountId(UUID(int=0))
"""The id of an account that an event would open, until the event is applied."""


class Shelf(Generic[Thing]):
    """Things by key, and which of them a batch has made or changed."""

    __slots__ = ("_things", "touched")

    def __init__(self) -> None:
        self._things: dict[Key, Thing] = {}
        self.touched: dict[Key, Thing] = {}

    def get(self, key: Key) -> Thing | None:
        return self._things.get(key)

    def load(self, key: Key, thing: Thing) -> None:
        self._things[key] = thing

    def put(self, key: Key, thing: Thing) -> None:
        """Keep a thing that was made or changed; it will be saved."""
        self._things[key] = thing
        self.touched[key] = thing

    def touch(self, key: Key) -> None:
        """Say that a thing that is here was changed; it will be saved."""
        self.touched[key] = self._things[key]


@dataclass(slots=True)
class Claim:
    """Who has a key: the seq of the event's row, and what it said."""

    seq: int
    fingerprint: int


@dataclass(slots=True)
class Books:
    """All that a batch of one shard sees and changes. Times and ids come from here; nothing asks a clock."""

    shard: int
    epoch: int
    next_seq: int
    recorded_at: datetime
    registered_only: bool = False
    """Whether only tenants made by `tenant.create` may have events."""
    known_tenants: set[str] = field(default_factory=set)
    new_tenants: set[str] = field(default_factory=set)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    accounts_by_id: dict[AccountId, Account] = field(default_factory=dict)
    opened: list[Account] = field(default_factory=list)
    changed_accounts: dict[AccountId, Account] = field(default_factory=dict)
    closed_through: dict[str, date] = field(default_factory=dict)
    periods_closed: set[str] = field(default_factory=set)
    claims: dict[Key, Claim] = field(default_factory=dict)
    new_claims: dict[Key, Claim] = field(default_factory=dict)
    released: set[Key] = field(default_factory=set)
    entries: dict[EntryId, tuple[str, Entry]] = field(default_factory=dict)
    """Entries that a command names or that this batch posted on request, with their tenant."""
    payments: Shelf[list[Payment]] = field(default_factory=Shelf)
    refunds: Shelf[Refund] = field(default_factory=Shelf)
    transfers: Shelf[Transfer] = field(default_factory=Shelf)
    payouts: Shelf[Payout] = field(default_factory=Shelf)
    disputes: Shelf[Dispute] = field(default_factory=Shelf)
    hold_expiry: timedelta = timedelta(days=7)
    """How long after its time a hold ends that doesn't say when."""
    holds: Shelf[Hold] = field(default_factory=Shelf)
    authorizations: Shelf[Authorization] = field(default_factory=Shelf)
    authorization_events: list[tuple[Key, int]] = field(default_factory=list)
    """Which authorization was touched by the event at which seq."""
    lines: dict[Key, LineOfCredit] = field(default_factory=dict)
    changed_lines: dict[Key, LineOfCredit] = field(default_factory=dict)
    line_owners: dict[Key, LineOfCredit] = field(default_factory=dict)
    categories: dict[Key, ExpenseCategory] = field(default_factory=dict)
    new_categories: dict[Key, ExpenseCategory] = field(default_factory=dict)
    cards: Shelf[Card] = field(default_factory=Shelf)
    waiting: dict[Key, deque[Event]] = field(default_factory=dict)
    """Parked events by what they wait for, in the order of their parking."""
    waiting_whole: bool = True
    """Whether `waiting` has all that wait for what the batch may make, or no more than one transaction takes."""
    waiting_count: dict[Key, int] = field(default_factory=dict)
    arrived: deque[Key] = field(default_factory=deque)
    _drafts: dict[tuple[str, str], Account] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget what the event before this one would have opened."""
        if self._drafts:
            self._drafts = {}

    def account(self, tenant_id: str, name: str) -> Account | None:
        return self.accounts.get((tenant_id, name))

    def account_for(self, tenant_id: str, name: str, account_type: AccountType) -> Account:
        """The account of this name, or one that is opened when the event at hand is applied."""
        place = (tenant_id, name)
        account = self.accounts.get(place)
        if account is None:
            account = self._drafts.get(place)
            if account is None:
                account = self._drafts[place] = Account(NOT_OPENED, tenant_id, name, account_type)
        return account

    def open_account(self, account: Account, ordinal: int) -> None:
        """Give an account its id and keep it; `ordinal` counts from 1 within the event at `next_seq`."""
        account.account_id = account_id(self.epoch, self.shard, self.next_seq, ordinal)
        self.keep_account(account)
        self.opened.append(account)

    def keep_account(self, account: Account) -> None:
        self.accounts[account.tenant_id, account.name] = account
        self.accounts_by_id[account.account_id] = account

    def keep_line(self, key: Key, line: LineOfCredit) -> None:
        """Keep a line of credit that was made or changed; it will be saved."""
        self.lines[key] = self.changed_lines[key] = line

    def ancestors(self, account: Account) -> Iterator[Account]:
        """Parent, grandparent, … as far as loaded. Raises: ValueError, where they were loaded at different times."""
        passed: set[AccountId] = set()
        parent_id = account.parent_id
        while parent_id is not None:
            if parent_id in passed:
                raise ValueError(f"account {parent_id} is above itself")
            passed.add(parent_id)
            parent = self.accounts_by_id[parent_id]
            yield parent
            parent_id = parent.parent_id
