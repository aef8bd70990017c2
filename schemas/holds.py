"""`ledger.authorizations`: parts of a balance set aside, and what becomes of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from schemas.fields import AccountName, Amount, Currency, FromZero, Id, Instant, Maybe, Wire, needed_where

HoldId = Annotated[Id, Field(description="The publisher's id of the hold; not that of an authorization.")]


class HoldCreatedV1(Wire):
    """Set a part of an account's available balance aside; it is held until it is captured, voided or expired."""

    hold_id: HoldId
    account: Annotated[AccountName, Field(description="The account whose balance it is; it must be there.")]
    amount: Amount
    currency: Currency
    direction: Annotated[
        Literal["in", "out"],
        Field(description="Where its captures move the money: `in` to the account, `out` from it; against cash."),
    ] = "in"
    payment_id: Annotated[Maybe[Id], Field(description="Kept with the hold and with the entries of its captures.")] = (
        None
    )
    expires_at: Annotated[
        Maybe[Instant], Field(description="When what is still held is given back; by default in seven days.")
    ] = None


class HoldAdjustedV1(Wire):
    """Hold more or less than before; one older, by `time`, than the last applied one changes nothing."""

    hold_id: HoldId
    adjustment_id: Annotated[Id, Field(description="Tells the adjustments of one hold apart.")]
    amount: Annotated[
        Amount, Field(description="The new total that is still held, in minor units of the hold's currency.")
    ]
    expires_at: Annotated[Maybe[Instant], Field(description="In place of the one that it had.")] = None


class HoldCapturedV1(Wire):
    """Post what is held, or a part of it; the final capture releases the rest."""

    # A capture that may be followed by others must be told apart from them.
    model_config = ConfigDict(json_schema_extra=needed_where("final", "capture_id", is_true=False))

    hold_id: HoldId
    amount: Annotated[
        Maybe[FromZero], Field(description="Minor units of the hold's currency; left out or 0: all that is held.")
    ] = None
    final: Annotated[bool, Field(description="Whether the rest is released.")] = True
    capture_id: Annotated[
        Maybe[Id], Field(description="Tells the captures of one hold apart; required where it isn't the final one.")
    ] = None

    @model_validator(mode="after")
    def _has_its_id(self) -> Self:
        if not self.final and self.capture_id is None:
            raise ValueError("capture_id: is missing; a capture that isn't final needs one")
        return self


class HoldVoidedV1(Wire):
    """Release what is held."""

    hold_id: HoldId
