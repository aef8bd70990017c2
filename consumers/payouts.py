"""`ledger.payouts`: money that went out to merchants, and payouts that came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.metadata import metadata_json
from domain.events import Command
from domain.payouts import PayoutFailed, PayoutPaid
from infra.kafka.intake import Batch, Intake, Translate
from schemas.payouts import PayoutFailedV1, PayoutPaidV1


def payout_paid(data: PayoutPaidV1) -> PayoutPaid:
    return PayoutPaid(
        payout_id=data.payout_id,
        amount=data.amount,
        currency=data.currency,
        merchant_id=data.merchant_id,
        cash_account=data.cash_account,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def payout_failed(data: PayoutFailedV1) -> PayoutFailed:
    return PayoutFailed(
        payout_id=data.payout_id,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {"payout.paid.v1": payout_paid, "payout.failed.v1": payout_failed}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("payouts")
    async def on_payouts(batch: Batch) -> None:
        await batch.hand_over(translate)
