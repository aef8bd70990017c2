"""`ledger.payments`: money came in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.facts import CashFact
from schemas.fields import Amount, Currency, Fees, Id, Maybe


class PaymentCapturedV1(CashFact):
    """A customer's payment was captured."""

    payment_id: Id
    capture_id: Annotated[Maybe[Id], Field(description="Tells the captures of one payment apart.")] = None
    amount: Amount
    currency: Currency
    customer_id: Id
    fees: Annotated[
        Fees, Field(description="What the platform keeps of the amount, in its minor units; 0 or more.")
    ] = 0
