"""`ledger.transfers`: money moved from a customer to a merchant, or back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.facts import MoneyFact
from schemas.fields import Amount, Currency, Id, Maybe


class TransferCreatedV1(MoneyFact):
    """A part of a customer's balance is now owed to a merchant."""

    transfer_id: Id
    amount: Amount
    currency: Currency
    customer_id: Id
    merchant_id: Id


class TransferReversedV1(MoneyFact):
    """A transfer, or a part of it, was taken back."""

    transfer_id: Id
    reversal_id: Annotated[Maybe[Id], Field(description="Tells the reversals of one transfer apart.")] = None
    amount: Annotated[
        Maybe[Amount], Field(description="Minor units of the transfer's currency; by default what is left of it.")
    ] = None
