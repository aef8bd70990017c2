"""`ledger.refunds`: money went back to a customer, or failed to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.facts import CashFact
from schemas.fields import Amount, Currency, Id, Maybe


class RefundSucceededV1(CashFact):
    """A customer was paid back; with `payment_id`, out of that payment."""

    refund_id: Id
    amount: Amount
    currency: Currency
    customer_id: Id
    payment_id: Annotated[Maybe[Id], Field(description="Waits for the payment if it isn't there yet.")] = None


class RefundFailedV1(CashFact):
    """A refund bounced: the opposite of its entry is posted, and its amount may be refunded again."""

    refund_id: Id
    failure_code: Annotated[Maybe[Id], Field(description="The provider's reason, kept as it is.")] = None
