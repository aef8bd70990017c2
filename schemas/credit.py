"""`ledger.commands`: expense categories, lines of credit, and whose cards are whose."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from schemas.authorizations import Country
from schemas.fields import Currency, Description, FromZero, Id, Maybe, Wire

MATCHES_MAX = 100
CRITERIA_MAX = 500
_MCC_RANGE = r"^[0-9]{4}(-[0-9]{4})?$"


def _check_range(mccs: str) -> str:
    first, _, last = mccs.partition("-")
    if last and last < first:
        raise ValueError("is a range that ends before it begins")
    return mccs


MccRange = Annotated[
    str, Field(pattern=_MCC_RANGE, description="One code, or a range with both ends."), AfterValidator(_check_range)
]
OwnerRef = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
        json_schema_extra={"format": "uuid"},
        description="The owner's id in the tenant's own systems.",
    ),
]
OwnerType = Annotated[Id, Field(description="What kind of thing the owner is, such as `employee` or `team`.")]
CardId = Annotated[Id, Field(description="The card, as `authorization.requested` names it. Never its number.")]
Credits = Annotated[FromZero, Field(description="Minor units of the line's currency, 0 or more.")]


class MatchedMerchantV1(Wire):
    """One merchant, by the id that its acquirer gave it."""

    merchant_id: Id
    acquirer_id: Id


class MatchRuleV1(Wire):
    """Which payments are of a category: those that meet every criterion given here."""

    mccs: Annotated[
        Maybe[list[MccRange]],
        Field(min_length=1, max_length=CRITERIA_MAX, description="Merchant category codes: one of these."),
    ] = None
    countries: Annotated[
        Maybe[list[Country]], Field(min_length=1, max_length=CRITERIA_MAX, description="Countries: one of these.")
    ] = None
    merchants: Annotated[
        Maybe[list[MatchedMerchantV1]],
        Field(min_length=1, max_length=CRITERIA_MAX, description="Merchants: one of these."),
    ] = None


class ExpenseCategoryCreateV1(Wire):
    """Make a category of expenses that lines of credit can be for."""

    code: Annotated[Id, Field(description="By which lines of credit and resolvers name it; it never changes.")]
    name: Id
    description: Maybe[Description] = None
    reference: Annotated[Maybe[Id], Field(description="What the tenant's own systems call it.")] = None
    match: Annotated[
        list[MatchRuleV1],
        Field(
            max_length=MATCHES_MAX,
            description="A payment is of this category if it meets any of these rules; an empty rule is met by all.",
        ),
    ] = []  # noqa: RUF012 (pydantic copies it, and the fingerprint asks for it)


class LineOfCreditCreateV1(Wire):
    """Give an owner credits for a category of expenses; an owner has one line for each category."""

    line_of_credit_id: Id
    owner_type: OwnerType
    owner_ref: OwnerRef
    expense_category: Annotated[Id, Field(description="The category's code.")]
    currency: Currency
    credits_limit: Credits = 0
    expensed_credits: Annotated[Credits, Field(description="What was spent of it before, in minor units.")] = 0


class LineOfCreditSetLimitV1(Wire):
    """Change how much may be spent."""

    line_of_credit_id: Id
    credits_limit: Credits


class LineOfCreditResetV1(Wire):
    """Begin anew, as at the start of a month: with this limit, and this much of it spent."""

    line_of_credit_id: Id
    credits_limit: Credits
    expensed_credits: Credits


class LineOfCreditTerminateV1(Wire):
    """End a line of credit: nothing is approved from it any more."""

    line_of_credit_id: Id


class CardAssignV1(Wire):
    """Say whose card it is: its payments are taken from the lines of credit of this owner."""

    card_id: CardId
    owner_type: OwnerType
    owner_ref: OwnerRef


class CardUnassignV1(Wire):
    """Say that a card is not this owner's any more."""

    card_id: CardId
    owner_type: OwnerType
    owner_ref: OwnerRef
