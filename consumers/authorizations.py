"""`ledger.authorizations`: parts of balances set aside, and card payments that ask whether they may go ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from domain.authorization_events import (
    AuthorizationAdjusted,
    AuthorizationCaptured,
    AuthorizationConfirmed,
    AuthorizationRefunded,
    AuthorizationReleased,
)
from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.events import Command
from domain.holds import HoldAdjusted, HoldCaptured, HoldCreated, HoldVoided
from domain.reservations import Resolution
from infra.kafka.intake import Batch, Intake, Translate
from schemas.authorizations import (
    AuthorizationAdjustedV1,
    AuthorizationAdvisedV1,
    AuthorizationCapturedV1,
    AuthorizationConfirmedV1,
    AuthorizationRefundedV1,
    AuthorizationReleasedV1,
    AuthorizationRequestedV1,
    CardPayment,
    JournaledAdviceV1,
    JournaledRequestV1,
)
from schemas.holds import HoldAdjustedV1, HoldCapturedV1, HoldCreatedV1, HoldVoidedV1


def hold_created(data: HoldCreatedV1) -> HoldCreated:
    return HoldCreated(
        hold_id=data.hold_id,
        account=data.account,
        amount=data.amount,
        currency=data.currency,
        direction=data.direction,
        payment_id=data.payment_id,
        expires_at=data.expires_at,
    )


def hold_adjusted(data: HoldAdjustedV1) -> HoldAdjusted:
    return HoldAdjusted(
        hold_id=data.hold_id, adjustment_id=data.adjustment_id, amount=data.amount, expires_at=data.expires_at
    )


def hold_captured(data: HoldCapturedV1) -> HoldCaptured:
    return HoldCaptured(hold_id=data.hold_id, amount=data.amount, final=data.final, capture_id=data.capture_id)


def hold_voided(data: HoldVoidedV1) -> HoldVoided:
    return HoldVoided(hold_id=data.hold_id)


def _card_payment(data: CardPayment) -> dict[str, Any]:
    """What a request and an advice have in common; out of the journal, with what the resolvers answered."""
    plain = ("provider", "external_id", "amount", "currency", "card_id", "account", "hold_amount", "expires_at")
    fields = {name: getattr(data, name) for name in (*plain, "merchant_amount", "merchant_currency")}
    fields["merchant"] = data.merchant.model_dump()
    if isinstance(data, JournaledRequestV1 | JournaledAdviceV1):
        kept = data.resolution
        categories = None if kept.categories is None else frozenset(kept.categories)
        fields["resolution"] = Resolution(categories, kept.lines, failed=kept.failed, off=kept.off)
    return fields


def authorization_requested(data: AuthorizationRequestedV1) -> AuthorizationRequested:
    return AuthorizationRequested(
        **_card_payment(data), partial_approval=data.partial_approval, respond_by=data.respond_by
    )


def authorization_advised(data: AuthorizationAdvisedV1) -> AuthorizationAdvised:
    return AuthorizationAdvised(**_card_payment(data))


def authorization_confirmed(data: AuthorizationConfirmedV1) -> AuthorizationConfirmed:
    return AuthorizationConfirmed(provider=data.provider, external_id=data.external_id, event_id=data.event_id)


def authorization_adjusted(data: AuthorizationAdjustedV1) -> AuthorizationAdjusted:
    return AuthorizationAdjusted(
        provider=data.provider,
        external_id=data.external_id,
        event_id=data.event_id,
        amount=data.amount,
        expires_at=data.expires_at,
    )


def authorization_captured(data: AuthorizationCapturedV1) -> AuthorizationCaptured:
    return AuthorizationCaptured(
        provider=data.provider,
        external_id=data.external_id,
        event_id=data.event_id,
        amount=data.amount,
        final=data.final,
        force_post=data.force_post,
        account=data.account,
        currency=data.currency,
    )


def authorization_refunded(data: AuthorizationRefundedV1) -> AuthorizationRefunded:
    return AuthorizationRefunded(
        provider=data.provider, external_id=data.external_id, event_id=data.event_id, amount=data.amount
    )


def authorization_released(data: AuthorizationReleasedV1) -> AuthorizationReleased:
    return AuthorizationReleased(
        provider=data.provider,
        external_id=data.external_id,
        event_id=data.event_id,
        reason=data.reason,
        amount=data.amount,
    )


TRANSLATIONS: dict[str, Callable[[Any], Command]] = {
    "hold.created.v1": hold_created,
    "hold.adjusted.v1": hold_adjusted,
    "hold.captured.v1": hold_captured,
    "hold.voided.v1": hold_voided,
    "authorization.requested.v1": authorization_requested,
    "authorization.advised.v1": authorization_advised,
    "authorization.confirmed.v1": authorization_confirmed,
    "authorization.adjusted.v1": authorization_adjusted,
    "authorization.captured.v1": authorization_captured,
    "authorization.refunded.v1": authorization_refunded,
    "authorization.released.v1": authorization_released,
}


def subscribe(intake: Intake, translate: Translate) -> None:
    """Read this stream into the ledger."""

    @intake.subscriber("authorizations", urgent=True)
    async def on_authorizations(batch: Batch) -> None:
        await batch.hand_over(translate)
