"""`ledger.payments`: money that came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.metadata import metadata_json
from domain.events import Command
from domain.payments import PaymentCaptured
from infra.kafka.intake import Batch, Intake, Translate
from schemas.payments import PaymentCapturedV1


def payment_captured(data: PaymentCapturedV1) -> PaymentCaptured:
    return PaymentCaptured(
        payment_id=data.payment_id,
        amount=data.amount,
        currency=data.currency,
        customer_id=data.customer_id,
        capture_id=data.capture_id,
        fees=data.fees,
        cash_account=data.cash_account,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {"payment.captured.v1": payment_captured}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("payments")
    async def on_payments(batch: Batch) -> None:
        await batch.hand_over(translate)
