"""`ledger.payouts`: a merchant was paid, or the payment bounced."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.facts import CashFact
from schemas.fields import Amount, Currency, Id, Maybe


class PayoutPaidV1(CashFact):
    """A merchant was paid what is owed to them."""

    payout_id: Id
    amount: Amount
    currency: Currency
    merchant_id: Id


class PayoutFailedV1(CashFact):
    """A payout bounced: the opposite of its entry is posted."""

    payout_id: Id
    failure_code: Annotated[Maybe[Id], Field(description="The provider's reason, kept as it is.")] = None
