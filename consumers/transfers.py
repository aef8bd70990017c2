"""`ledger.transfers`: money that became a merchant's, or stopped being so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.metadata import metadata_json
from domain.events import Command
from domain.transfers import TransferCreated, TransferReversed
from infra.kafka.intake import Batch, Intake, Translate
from schemas.transfers import TransferCreatedV1, TransferReversedV1


def transfer_created(data: TransferCreatedV1) -> TransferCreated:
    return TransferCreated(
        transfer_id=data.transfer_id,
        amount=data.amount,
        currency=data.currency,
        customer_id=data.customer_id,
        merchant_id=data.merchant_id,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def transfer_reversed(data: TransferReversedV1) -> TransferReversed:
    return TransferReversed(
        transfer_id=data.transfer_id,
        reversal_id=data.reversal_id,
        amount=data.amount,
        provider=data.provider,
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {
    "transfer.created.v1": transfer_created,
    "transfer.reversed.v1": transfer_reversed,
}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("transfers")
    async def on_transfers(batch: Batch) -> None:
        await batch.hand_over(translate)
