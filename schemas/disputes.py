"""`ledger.disputes`: a customer contests a payment, and what comes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.facts import CashFact
from schemas.fields import Amount, Currency, Fees, Id, Maybe

OutcomeId = Annotated[
    Maybe[Id], Field(description="Tells the outcomes of one dispute apart, where it is decided in parts.")
]
DisputedAmount = Annotated[
    Maybe[Amount], Field(description="Minor units of the dispute's currency; by default what is still held.")
]
DisputeFees = Annotated[Fees, Field(description="What the scheme charges for it, in minor units; 0 or more.")]


class DisputeOpenedV1(CashFact):
    """A payment was contested: the amount is held, out of cash, until it is decided."""

    dispute_id: Id
    amount: Amount
    currency: Currency
    customer_id: Id
    payment_id: Annotated[Maybe[Id], Field(description="Waits for the payment if it isn't there yet.")] = None
    fees: DisputeFees = 0


class DisputeWonV1(CashFact):
    """A dispute, or a part of it, was decided for the platform: the money comes back."""

    dispute_id: Id
    outcome_id: OutcomeId = None
    amount: DisputedAmount = None


class DisputeLostV1(CashFact):
    """A dispute, or a part of it, was lost: the customer, or the platform, bears it."""

    dispute_id: Id
    outcome_id: OutcomeId = None
    amount: DisputedAmount = None
    charge_to: Annotated[Literal["customer", "platform"], Field(description="Who bears the loss.")] = "customer"


class DisputeReopenedV1(CashFact):
    """A dispute came back: the amount is held again."""

    dispute_id: Id
    reopening_id: Annotated[Id, Field(description="Tells the reopenings of one dispute apart.")]
    amount: Amount
    fees: DisputeFees = 0
