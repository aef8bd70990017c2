"""`ledger.authorizations`: card payments that ask whether they may go ahead, and what becomes of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from schemas.fields import (
    AccountName,
    Amount,
    Currency,
    FromZero,
    Id,
    Instant,
    Maybe,
    Wire,
    needed_where,
)

Mcc = Annotated[
    str, Field(pattern=r"^[0-9]{4}$", description="The merchant's category code, ISO 18245, of four digits.")
]
Country = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 3166-1 alpha-3, such as FRA.")]


class MerchantV1(Wire):
    """Where a card is used."""

    merchant_id: Id
    acquirer_id: Annotated[Id, Field(description="Who gave the merchant its id.")]
    mcc: Mcc
    name: Id
    country: Country
    postal_code: Maybe[Id] = None
    city: Maybe[Id] = None


class AboutAuthorization(Wire):
    """Something about one authorization, of which there is one per provider and external id."""

    provider: Annotated[Id, Field(description="The card processor.")]
    external_id: Annotated[Id, Field(description="The processor's id of the authorization.")]


class CardPayment(AboutAuthorization):
    """A payment by card as its processor tells it."""

    amount: Annotated[FromZero, Field(description="Minor units of `currency`; 0 asks whether the card is good.")]
    currency: Currency
    card_id: Annotated[Id, Field(description="The card, as `card.assign` names it. Never its number.")]
    merchant: MerchantV1
    account: Annotated[
        Maybe[AccountName], Field(description="The account that pays; without one only lines of credit are asked.")
    ] = None
    hold_amount: Annotated[
        Maybe[FromZero],
        Field(
            description="What is held on the account, in minor units of `currency`, where that isn't the approved "
            "amount: a fuel pump asks for 1 and holds 100. On partial approval the approved amount is held."
        ),
    ] = None
    expires_at: Annotated[
        Maybe[Instant], Field(description="When what isn't captured is given back; by default in seven days.")
    ] = None
    merchant_amount: Annotated[
        Maybe[FromZero], Field(description="What the merchant asked for, in minor units of `merchant_currency`.")
    ] = None
    merchant_currency: Maybe[Currency] = None


class AuthorizationRequestedV1(CardPayment):
    """May this card payment go ahead? The answer is an `authorization.decided`."""

    partial_approval: Annotated[bool, Field(description="Whether less than the amount may be approved.")] = False
    respond_by: Annotated[
        Maybe[Instant], Field(description="When the processor stops waiting: it is declined if it is handled later.")
    ] = None


class AuthorizationAdvisedV1(CardPayment):
    """The processor has approved a card payment in our place: it stands, whatever the limits say."""


class AuthorizationEvent(AboutAuthorization):
    """Something that happened to an authorization after it was asked for."""

    event_id: Annotated[Id, Field(description="Tells the events of one authorization apart.")]


class AuthorizationConfirmedV1(AuthorizationEvent):
    """The processor says that the payment exists; this may come before or after the decision."""


class AuthorizationAdjustedV1(AuthorizationEvent):
    """More or less than was approved is asked for; one older, by `time`, than the last applied one changes nothing."""

    amount: Annotated[
        FromZero,
        Field(description="The new total, in minor units of the authorization's currency; past the limit if need be."),
    ]
    expires_at: Annotated[Maybe[Instant], Field(description="In place of the one that it had.")] = None


class AuthorizationCapturedV1(AuthorizationEvent):
    """The money of an authorization, or a part of it, was taken."""

    # Where there may be no authorization, only the event itself can say what its amount is of.
    model_config = ConfigDict(json_schema_extra=needed_where("force_post", "currency", is_true=True))

    amount: Annotated[
        Amount, Field(description="Minor units of the authorization's currency; may exceed what was authorized.")
    ]
    final: Annotated[bool, Field(description="Whether what is still authorized beyond it is given back.")] = True
    force_post: Annotated[bool, Field(description="Whether it counts without any authorization.")] = False
    account: Annotated[
        Maybe[AccountName], Field(description="The account that pays; by default the authorization's own.")
    ] = None
    currency: Annotated[Maybe[Currency], Field(description="Required with `force_post`.")] = None

    @model_validator(mode="after")
    def _says_what_it_is_of(self) -> Self:
        if self.force_post and self.currency is None:
            raise ValueError("currency: is missing; a capture with force_post needs one")
        return self


class AuthorizationRefundedV1(AuthorizationEvent):
    """Money of an authorization came back."""

    amount: Annotated[Amount, Field(description="Minor units of the authorization's currency.")]


class AuthorizationReleasedV1(AuthorizationEvent):
    """What was authorized will not be taken, or not all of it."""

    amount: Annotated[
        Maybe[Amount],
        Field(
            description="What is given back, in minor units of the authorization's currency; by default all that "
            "isn't captured."
        ),
    ] = None
    reason: Literal["cancelled", "refused", "expired", "partial"]


# --- in the journal -------------------------------------------------------------------------------------------------


class ResolutionV1(Wire):
    """What the resolvers answered when a card payment was first handled: a decision is replayed with the same."""

    categories: list[str] | None = None
    lines: dict[str, str] | None = None
    failed: bool = False
    off: bool = False


class JournaledRequestV1(AuthorizationRequestedV1):
    """A request as it is kept: with what the resolvers answered."""

    resolution: ResolutionV1


class JournaledAdviceV1(AuthorizationAdvisedV1):
    """An advice as it is kept: with what the resolvers answered."""

    resolution: ResolutionV1
