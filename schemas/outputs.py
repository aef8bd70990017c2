"""What subscribers get. Times are in UTC; what is absent is left out; signed amounts are debit positive."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.commands import AccountType
from schemas.fields import BIGINT_MAX, AccountName, Currency, Description, Id, Instant, Maybe, Metadata, Wire
from schemas.rejections import RejectionCode

Uuid = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        json_schema_extra={"format": "uuid"},
    ),
]
Bigint = Annotated[int, Field(ge=-BIGINT_MAX - 1, le=BIGINT_MAX)]
Signed = Annotated[Bigint, Field(description="Minor units of `currency`, debit positive, credit negative.")]
Natural = Annotated[Bigint, Field(description="Minor units, positive in the account's normal direction.")]
Unsigned = Annotated[int, Field(ge=0, le=BIGINT_MAX)]
Minor = Annotated[Unsigned, Field(description="Minor units of `currency`, 0 or more.")]
Version = Annotated[
    int, Field(ge=1, le=BIGINT_MAX, description="Counts from 1 without gaps, per account and currency.")
]
Shard = Annotated[int, Field(ge=0, le=32767)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE2b-256, in hexadecimal.")]
RecordedAt = Annotated[Instant, Field(description="When the ledger recorded it; never goes back within a shard.")]
EffectiveAt = Annotated[Instant, Field(description="From when it counts.")]


class CauseV1(Wire):
    """The event that an output comes from."""

    type: Id
    id: Annotated[str, Field(min_length=1)]
    source: Id


class AuthorizationReferenceV1(Wire):
    """Which authorization."""

    provider: Id
    external_id: Id


# --- balances -------------------------------------------------------------------------------------------------------


class BalanceDeltaV1(Wire):
    """By how much one event moved a balance."""

    posted: Signed
    held: Signed
    pending: Signed


class BalanceChangedV1(Wire):
    """One account's balance in one currency after an event moved it; one for each, whatever the event's legs."""

    account_id: Uuid
    account: AccountName
    currency: Currency
    type: AccountType
    version: Version
    posted: Signed
    pending: Annotated[
        Signed, Field(description="What is dated in the future: minor units, debit positive, credit negative.")
    ]
    held: Annotated[Unsigned, Field(description="What holds and card payments set aside, in minor units.")]
    available: Annotated[
        Natural, Field(description="Natural posted less held: minor units, positive in the account's normal direction.")
    ]
    change: BalanceDeltaV1
    entry_id: Maybe[Uuid] = None
    hold_id: Maybe[Id] = None
    authorization: Maybe[AuthorizationReferenceV1] = None
    cause: CauseV1
    effective_at: EffectiveAt
    recorded_at: RecordedAt


# --- entries --------------------------------------------------------------------------------------------------------

EntryKind = Literal[
    "payment",
    "refund",
    "refund_failed",
    "transfer",
    "transfer_reversed",
    "payout",
    "payout_failed",
    "dispute_opened",
    "dispute_won",
    "dispute_lost",
    "dispute_reopened",
    "hold_captured",
    "authorization_captured",
    "authorization_refunded",
    "posted",
    "reversal",
    "transaction",
    "subledger",
]


class EntryReferencesV1(Wire):
    """What the entry belongs to; entries can be listed by each."""

    payment_id: Maybe[Id] = None
    refund_id: Maybe[Id] = None
    transfer_id: Maybe[Id] = None
    payout_id: Maybe[Id] = None
    dispute_id: Maybe[Id] = None


class RecordedPostingV1(Wire):
    """One leg of an entry, and its account's balance after the event."""

    account_id: Uuid
    account: AccountName
    amount: Signed
    currency: Currency
    posted_after: Signed
    version: Version


class EntryRecordedV1(Wire):
    """An entry was made; its postings sum to zero in each currency."""

    entry_id: Uuid
    seq: Annotated[Unsigned, Field(description="The same as the header `ledger-seq`.")]
    kind: EntryKind
    description: Maybe[Description] = None
    references: EntryReferencesV1
    metadata: Maybe[Metadata] = None
    effective_at: EffectiveAt
    recorded_at: RecordedAt
    occurred_at: Annotated[Instant, Field(description="The event's own `time`.")]
    reverses: Annotated[Maybe[Uuid], Field(description="The entry that this one takes back.")] = None
    transaction_id: Maybe[Id] = None
    version: Annotated[Maybe[int], Field(ge=1, description="Of the transaction.")] = None
    subledger_id: Maybe[Id] = None
    pending: Annotated[bool, Field(description="Dated in the future: not in `posted` yet.")]
    breaches: Annotated[
        list[RejectionCode],
        Field(description="What a request would have been refused for; a fact is posted all the same."),
    ]
    cause: CauseV1
    postings: Annotated[list[RecordedPostingV1], Field(min_length=1)]


class SubledgerRestatedV1(Wire):
    """A record was put into a subledger's past: the balances of all later records moved."""

    subledger_id: Id
    from_entry_id: Annotated[Uuid, Field(description="The inserted record.")]
    from_created_at: Instant
    count: Annotated[int, Field(ge=1, le=BIGINT_MAX, description="How many records come after it.")]
    shift: Annotated[
        Signed, Field(description="By how much each of their balances moved: minor units, debit positive.")
    ]
    balance: Annotated[Signed, Field(description="The subledger's balance now: minor units, debit positive.")]


# --- decisions ------------------------------------------------------------------------------------------------------

DecisionReason = Literal[
    "no_expense_category",
    "expense_category_not_found",
    "no_line_of_credit",
    "currency_mismatch",
    "insufficient_credits",
    "account_not_found",
    "account_frozen",
    "account_closed",
    "insufficient_balance",
    "partial",
    "expired_before_decision",
    "resolver_failed",
]


class LineOfCreditStateV1(Wire):
    """What a line of credit has left after a decision."""

    id: Id
    available: Annotated[
        Bigint,
        Field(description="Minor units of its currency; below 0 where facts went past its limit."),
    ]


class AccountStateV1(Wire):
    """An account's balance after a decision."""

    name: AccountName
    posted: Signed
    held: Minor
    available: Natural


class AuthorizationDecidedV1(Wire):
    """Whether a card payment may go ahead."""

    provider: Id
    external_id: Id
    decision: Literal["approved", "declined"]
    decided_by: Annotated[
        Literal["ledger", "stand_in"], Field(description="`stand_in`: the processor decided in our place.")
    ]
    reason: Annotated[Maybe[DecisionReason], Field(description="The first check that failed, or `partial`.")] = None
    reasons: Annotated[list[DecisionReason], Field(description="All checks that failed or were short.")]
    amount: Annotated[Minor, Field(description="What was asked for, in minor units of `currency`.")]
    approved_amount: Annotated[
        Minor, Field(description="Minor units of `currency`; 0 when declined, less than `amount` when partly approved.")
    ]
    hold_amount: Annotated[
        Maybe[Minor], Field(description="What is held on the account for it, in minor units of `currency`.")
    ] = None
    currency: Currency
    expense_categories: Annotated[list[Id], Field(description="The categories that the payment is of, by their codes.")]
    lines_of_credit: Annotated[
        list[LineOfCreditStateV1], Field(description="The lines that were found for it, and what each has left now.")
    ]
    account: Annotated[
        Maybe[AccountStateV1],
        Field(description="The account that pays, after the decision; without one there is none."),
    ] = None
    cause: CauseV1
    decided_at: Annotated[Instant, Field(description="When the ledger recorded the decision.")]


class AuthorizationChangedV1(Wire):
    """An authorization after each later event; with `confirmed`, approved or declined is what others call complete."""

    provider: Id
    external_id: Id
    status: Annotated[
        Literal["pending", "declined", "approved", "captured", "released"],
        Field(description="`pending`: confirmed, and not decided yet."),
    ]
    confirmed: Annotated[bool, Field(description="Whether the processor has said that the payment exists.")]
    authorized: Annotated[
        Unsigned,
        Field(
            description="The approved amount as later events changed it; minor units of the authorization's currency."
        ),
    ]
    captured: Annotated[Unsigned, Field(description="What was taken so far, in the same minor units.")]
    refunded: Annotated[Unsigned, Field(description="What came back so far, in the same minor units.")]
    superseded: Annotated[Maybe[bool], Field(description="The event was older than one that was applied.")] = None
    cause: CauseV1
    recorded_at: RecordedAt


# --- outcomes -------------------------------------------------------------------------------------------------------


class EventReferenceV1(Wire):
    """The event that was handled, and where it stood."""

    type: Id
    id: Id
    source: Id
    idempotency_key: Maybe[Id] = None
    topic: Annotated[Maybe[str], Field(description="The full name of the topic.")] = None
    partition: Maybe[Unsigned] = None
    offset: Maybe[Unsigned] = None


class EventRejectedV1(Wire):
    """An event was refused; nothing of it was posted."""

    code: RejectionCode
    message: Annotated[str, Field(min_length=1, description="For people; may change.")]
    differs: Annotated[
        Maybe[list[str]],
        Field(description="With `idempotency_conflict`: the fields that differ from the first event's."),
    ] = None
    waits_for: Annotated[Maybe[str], Field(description="What it waited for until its patience was over.")] = None
    event: EventReferenceV1


class EventParkedV1(Wire):
    """An event waits for something that isn't there yet; it is applied right after that arrives."""

    code: Annotated[Maybe[RejectionCode], Field(description="With what it is rejected when its patience is over.")] = (
        None
    )
    message: Annotated[Maybe[str], Field(description="For people; may change.")] = None
    waits_for: Annotated[str, Field(min_length=1, description="What must arrive, such as `payment pay_1`.")]
    event: EventReferenceV1


class CommandAppliedV1(Wire):
    """A command was applied."""

    event: EventReferenceV1
    result: Annotated[
        dict[str, Any],
        Field(
            description="The ids it made or was about, such as `account_id`, `entry_id`, or `hold_id` with `status`."
        ),
    ]


# --- seals ----------------------------------------------------------------------------------------------------------


class LedgerSealedV1(Wire):
    """The proof that the outputs `seq_first` to `seq_last` of a shard have all been published, in one transaction."""

    epoch: Unsigned
    shard: Shard
    seq_first: Unsigned
    seq_last: Unsigned
    counts: Annotated[dict[str, Unsigned], Field(description="How many of them are on which topic, by its full name.")]
    head_hash: Annotated[Hash, Field(description="The head of the shard's hash chain after `seq_last`.")]
