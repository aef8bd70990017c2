"""`ledger.commands`: requests, each applied or refused with a code."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.fields import (
    BIGINT_MAX,
    POSTINGS_MAX,
    AccountName,
    Currency,
    Day,
    Description,
    Id,
    Instant,
    Limit,
    Maybe,
    Metadata,
    SignedAmount,
    Wire,
)

_SHAPE = "Natural amounts in minor units: an object of them by currency, or a plain integer that is for each currency."
AccountType = Literal["asset", "liability", "equity", "revenue", "expense"]


class AccountCreateV1(Wire):
    """Open an account."""

    name: AccountName
    type: AccountType
    currency: Annotated[Maybe[Currency], Field(description="An account with a currency holds that unit only.")] = None
    parent: Annotated[Maybe[AccountName], Field(description="The account under which it is shown in reports.")] = None
    floor: Annotated[Maybe[Limit], Field(description=f"What the available balance may not fall below. {_SHAPE}")] = None
    ceiling: Annotated[
        Maybe[Limit], Field(description=f"What the natural posted balance may not rise above. {_SHAPE}")
    ] = None
    description: Maybe[Description] = None
    metadata: Maybe[Metadata] = None


class AccountUpdateV1(Wire):
    """Change what is given of an account; null takes the parent, the floor or the ceiling away.

    Shape: what was given is in `model_fields_set`.
    """

    name: AccountName
    parent: Annotated[AccountName | None, Field(description="Null: none any more.")] = None
    floor: Annotated[Limit | None, Field(description=f"In place of the one it had; null: none any more. {_SHAPE}")] = (
        None
    )
    ceiling: Annotated[
        Limit | None, Field(description=f"In place of the one it had; null: none any more. {_SHAPE}")
    ] = None
    status: Annotated[
        Maybe[Literal["active", "frozen"]], Field(description="A frozen account refuses requests, never facts.")
    ] = None
    description: Maybe[Description] = None
    metadata: Maybe[Metadata] = None


class AccountCloseV1(Wire):
    """Close an account that has no balance, hold or pending amount left."""

    name: AccountName


class EntryPostingV1(Wire):
    """One leg of an entry."""

    account: AccountName
    amount: SignedAmount
    currency: Currency
    expect_version: Annotated[
        Maybe[int],
        Field(ge=0, le=BIGINT_MAX, description="The version its balance must have before this; 0: none yet."),
    ] = None


class EntryPostV1(Wire):
    """Post a balanced entry of 2 to 100 legs that sum to zero per currency."""

    postings: Annotated[
        list[EntryPostingV1],
        Field(max_length=POSTINGS_MAX, description="2 to 100 legs; fewer are rejected `too_few_postings`."),
    ]
    description: Maybe[Description] = None
    payment_id: Maybe[Id] = None
    refund_id: Maybe[Id] = None
    transfer_id: Maybe[Id] = None
    payout_id: Maybe[Id] = None
    dispute_id: Maybe[Id] = None
    metadata: Maybe[Metadata] = None
    effective_at: Annotated[Maybe[Instant], Field(description="By default the event's `time`.")] = None


class EntryReverseV1(Wire):
    """Post the opposite of an entry that `entry.post` made."""

    entry_id: Id
    description: Maybe[Description] = None


class PeriodCloseV1(Wire):
    """Close the books up to and including a day, in UTC: from then on nothing is effective on or before it."""

    through: Day


class TenantCreateV1(Wire):
    """Register the tenant that the envelope names."""

    shard: Annotated[
        Maybe[int], Field(ge=0, le=32767, description="Where its books are kept; by default by the hash of its id.")
    ] = None
