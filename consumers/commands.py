"""`ledger.commands`: requests, each applied or refused with a code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers.metadata import metadata_json
from domain.account_commands import UNSET, AccountClose, AccountCreate, AccountUpdate
from domain.accounts import EVERY_CURRENCY, AccountStatus, AccountType
from domain.administration import PeriodClose, TenantCreate
from domain.entries import EntryPost, EntryReverse, RequestedPosting
from domain.events import Command
from infra.kafka.intake import Batch, Intake, Translate
from schemas.commands import (
    AccountCloseV1,
    AccountCreateV1,
    AccountUpdateV1,
    EntryPostV1,
    EntryReverseV1,
    PeriodCloseV1,
    TenantCreateV1,
)


def limits(limit: int | dict[str, int] | None) -> dict[str, int]:
    """A floor or ceiling by currency: a plain number is for each currency of the account."""
    if limit is None:
        return {}
    return {EVERY_CURRENCY: limit} if isinstance(limit, int) else dict(limit)


def account_create(data: AccountCreateV1) -> AccountCreate:
    return AccountCreate(
        name=data.name,
        type=AccountType(data.type),
        currency=data.currency,
        parent=data.parent,
        floors=limits(data.floor),
        ceilings=limits(data.ceiling),
        description=data.description,
        metadata=metadata_json(data.metadata),
    )


def account_update(data: AccountUpdateV1) -> AccountUpdate:
    given: dict[str, Any] = {name: getattr(data, name) for name in data.model_fields_set - {"name"}}
    return AccountUpdate(
        name=data.name,
        parent=given.get("parent", UNSET),
        floors=limits(given["floor"]) if "floor" in given else UNSET,
        ceilings=limits(given["ceiling"]) if "ceiling" in given else UNSET,
        status=AccountStatus(given["status"]) if given.get("status") is not None else UNSET,
        description=given.get("description", UNSET),
        metadata=metadata_json(given["metadata"]) if "metadata" in given else UNSET,
    )


def account_close(data: AccountCloseV1) -> AccountClose:
    return AccountClose(name=data.name)


def entry_post(data: EntryPostV1) -> EntryPost:
    named = ("payment_id", "refund_id", "transfer_id", "payout_id", "dispute_id")
    return EntryPost(
        postings=[
            RequestedPosting(posting.account, posting.amount, posting.currency, posting.expect_version)
            for posting in data.postings
        ],
        references={name: value for name in named if (value := getattr(data, name)) is not None},
        description=data.description,
        metadata=metadata_json(data.metadata),
        effective_at=data.effective_at,
    )


def entry_reverse(data: EntryReverseV1) -> EntryReverse:
    return EntryReverse(entry_id=data.entry_id, description=data.description)


def period_close(data: PeriodCloseV1) -> PeriodClose:
    return PeriodClose(through=data.through)


def tenant_create(data: TenantCreateV1) -> TenantCreate:
    return TenantCreate(shard=data.shard)


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {
    "account.create.v1": account_create,
    "account.update.v1": account_update,
    "account.close.v1": account_close,
    "entry.post.v1": entry_post,
    "entry.reverse.v1": entry_reverse,
    "period.close.v1": period_close,
    "tenant.create.v1": tenant_create,
}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("commands")
    async def on_commands(batch: Batch) -> None:
        await batch.hand_over(translate)
