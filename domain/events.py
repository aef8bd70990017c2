"""What comes in and what becomes of it: an event carries a command, and each ends in one of four ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from domain.accounts import Account, Balance
from domain.ids import EntryId
from domain.keys import Key, delivery_key, publisher_key
from domain.rejections import RejectionCode

if TYPE_CHECKING:
    from domain.books import Books
    from domain.needs import Needs


class Command(ABC):
    """What the domain is asked, translated from an event of the wire.

    A fact has happened outside and is posted whatever our books think of it; a request may be refused.
    """

    __slots__ = ()

    fact: ClassVar[bool]
    due: ClassVar[bool] = False
    """Whether it is the clock's: what is due says whether it happens, not whether its keys are known."""
    taken: ClassVar[RejectionCode | None] = None
    """For a create: the code when its id is taken by other data."""

    @abstractmethod
    def natural_key(self, tenant_id: str) -> Key | None:
        """The key of the business fact, if the command has one."""

    def arrives(self, tenant_id: str) -> Key | None:
        """The key of the thing that this command makes and that parked events may wait for."""
        return None

    @abstractmethod
    def needs(self, tenant_id: str, needs: Needs) -> None:
        """Say what must be loaded before `decide`."""

    @abstractmethod
    def decide(self, event: Event, books: Books) -> Outcome:
        """What this command does to the books; they are changed exactly if the outcome is Applied."""


@dataclass(slots=True)
class Event:
    """One event of one tenant, its keys made. `carried` is the shell's own and never read here."""

    type: str
    tenant_id: str
    source: str
    event_id: str
    occurred_at: datetime
    command: Command
    fingerprint: int
    idempotency_key: str | None = None
    traceparent: str | None = None
    parked_seq: int | None = None
    """Where this event was parked, if it comes from there."""
    carried: Any = None
    natural: Key | None = field(init=False)
    publisher: Key | None = field(init=False)
    delivery: Key = field(init=False)
    arrives: Key | None = field(init=False)
    """What parked events may wait for, and this event makes."""

    def __post_init__(self) -> None:
        self.natural = self.command.natural_key(self.tenant_id)
        self.publisher = None if self.idempotency_key is None else publisher_key(self.tenant_id, self.idempotency_key)
        self.delivery = delivery_key(self.tenant_id, self.source, self.event_id)
        self.arrives = self.command.arrives(self.tenant_id)


class Posting(NamedTuple):
    """One leg of an entry. `amount`: debit positive, credit negative, minor units; the rest as after the event."""

    account: Account
    currency: str
    amount: int
    posted_after: int
    version: int


class BalanceChange(NamedTuple):
    """What an event did to one account in one currency: the change, and the balance after it."""

    account: Account
    currency: str
    balance: Balance
    posted_change: int
    pending_change: int
    held_change: int
    posted: int
    pending: int
    held: int
    version: int


@dataclass(slots=True)
class Entry:
    """A balanced journal entry."""

    entry_id: EntryId
    seq: int
    kind: str
    postings: list[Posting]
    effective_at: datetime
    occurred_at: datetime
    references: Mapping[str, str]
    """`payment_id`, `refund_id`, …, those it has."""
    description: str | None = None
    metadata: bytes | None = None
    """A JSON object, as given."""
    reverses: EntryId | None = None
    breaches: list[RejectionCode] = field(default_factory=list)
    pending: bool = False


class AccountState(NamedTuple):
    """An account's balance after a decision: `posted` signed, `available` natural."""

    name: str
    posted: int
    held: int
    available: int


@dataclass(slots=True)
class Decision:
    """Whether a card payment may go ahead, as it is published. `lines`: id and what it has left."""

    provider: str
    external_id: str
    decision: str
    decided_by: str
    reason: str | None
    reasons: tuple[str, ...]
    amount: int
    approved_amount: int
    hold_amount: int | None
    currency: str
    categories: tuple[str, ...]
    lines: list[tuple[str, int]]
    account: AccountState | None


class AuthorizationChange(NamedTuple):
    """An authorization after a later event, as it is published."""

    provider: str
    external_id: str
    status: str
    confirmed: bool
    authorized: int
    captured: int
    refunded: int
    superseded: bool


@dataclass(slots=True)
class Applied:
    """The event changed the books.

    Its outputs, in this order: the entry, the balance changes, the decision, the authorization's change, the result.
    """

    entry: Entry | None = None
    changes: list[BalanceChange] = field(default_factory=list)
    result: dict[str, Any] | None = None
    """What a request made, for `command.applied`; None for facts."""
    hold_id: str | None = None
    """Whose holding the balance changes are about, if a hold's."""
    authorization: tuple[str, str] | None = None
    """The same of an authorization: provider and external id."""
    decision: Decision | None = None
    changed: AuthorizationChange | None = None

    @property
    def outputs(self) -> int:
        return (
            (self.entry is not None)
            + len(self.changes)
            + (self.decision is not None)
            + (self.changed is not None)
            + (self.result is not None)
        )


@dataclass(slots=True)
class Rejected:
    """The event can't be applied, for a stable reason."""

    code: RejectionCode
    message: str
    conflicts_with: int | None = None
    """For a conflict of keys: the seq of the event that has the key."""


@dataclass(slots=True)
class Parked:
    """The event waits for something not there yet; with its patience over it is rejected with `code`."""

    waits_for: Key
    waits_for_text: str
    code: RejectionCode


@dataclass(slots=True)
class Duplicate:
    """The event is known: nothing changes, nothing is published."""


Outcome = Applied | Rejected | Parked | Duplicate


@dataclass(slots=True)
class Handled:
    """One handling of one event: at which seq its outputs begin, and how it ended."""

    event: Event
    seq: int
    outcome: Applied | Rejected | Parked
    resumes: int | None
    """Where the event was parked before, if it was."""
