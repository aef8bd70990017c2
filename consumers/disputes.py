"""`ledger.disputes`: money that the card network holds back, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.metadata import metadata_json
from domain.disputes import DisputeOpened, DisputeReopened, DisputeSettled
from domain.events import Command
from infra.kafka.intake import Batch, Intake, Translate
from schemas.disputes import DisputeLostV1, DisputeOpenedV1, DisputeReopenedV1, DisputeWonV1


def dispute_opened(data: DisputeOpenedV1) -> DisputeOpened:
    return DisputeOpened(
        dispute_id=data.dispute_id,
        amount=data.amount,
        currency=data.currency,
        customer_id=data.customer_id,
        payment_id=data.payment_id,
        fees=data.fees,
        cash_account=data.cash_account,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def dispute_won(data: DisputeWonV1) -> DisputeSettled:
    return DisputeSettled(
        dispute_id=data.dispute_id,
        won=True,
        outcome_id=data.outcome_id,
        amount=data.amount,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def dispute_lost(data: DisputeLostV1) -> DisputeSettled:
    return DisputeSettled(
        dispute_id=data.dispute_id,
        won=False,
        outcome_id=data.outcome_id,
        amount=data.amount,
        charge_to=data.charge_to,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def dispute_reopened(data: DisputeReopenedV1) -> DisputeReopened:
    return DisputeReopened(
        dispute_id=data.dispute_id,
        reopening_id=data.reopening_id,
        amount=data.amount,
        fees=data.fees,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {
    "dispute.opened.v1": dispute_opened,
    "dispute.won.v1": dispute_won,
    "dispute.lost.v1": dispute_lost,
    "dispute.reopened.v1": dispute_reopened,
}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("disputes")
    async def on_disputes(batch: Batch) -> None:
        await batch.hand_over(translate)
