"""`ledger.refunds`: money that went back to customers, and refunds that came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.metadata import metadata_json
from domain.events import Command
from domain.refunds import RefundFailed, RefundSucceeded
from infra.kafka.intake import Batch, Intake, Translate
from schemas.refunds import RefundFailedV1, RefundSucceededV1


def refund_succeeded(data: RefundSucceededV1) -> RefundSucceeded:
    return RefundSucceeded(
        refund_id=data.refund_id,
        amount=data.amount,
        currency=data.currency,
        customer_id=data.customer_id,
        payment_id=data.payment_id,
        cash_account=data.cash_account,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def refund_failed(data: RefundFailedV1) -> RefundFailed:
    return RefundFailed(
        refund_id=data.refund_id,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {
    "refund.succeeded.v1": refund_succeeded,
    "refund.failed.v1": refund_failed,
}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("refunds")
    async def on_refunds(batch: Batch) -> None:
        await batch.hand_over(translate)
