"""The tables of all types of event, in and out: where each belongs, what it carries, how it is treated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from schemas.authorizations import (
    AuthorizationAdjustedV1,
    AuthorizationAdvisedV1,
    AuthorizationCapturedV1,
    AuthorizationConfirmedV1,
    AuthorizationRefundedV1,
    AuthorizationReleasedV1,
    AuthorizationRequestedV1,
    JournaledAdviceV1,
    JournaledRequestV1,
)
from schemas.commands import (
    AccountCloseV1,
    AccountCreateV1,
    AccountUpdateV1,
    EntryPostV1,
    EntryReverseV1,
    PeriodCloseV1,
    TenantCreateV1,
)
from schemas.credit import (
    CardAssignV1,
    CardUnassignV1,
    ExpenseCategoryCreateV1,
    LineOfCreditCreateV1,
    LineOfCreditResetV1,
    LineOfCreditSetLimitV1,
    LineOfCreditTerminateV1,
)
from schemas.disputes import DisputeLostV1, DisputeOpenedV1, DisputeReopenedV1, DisputeWonV1
from schemas.fields import Wire
from schemas.holds import HoldAdjustedV1, HoldCapturedV1, HoldCreatedV1, HoldVoidedV1
from schemas.outputs import (
    AuthorizationChangedV1,
    AuthorizationDecidedV1,
    BalanceChangedV1,
    CommandAppliedV1,
    EntryRecordedV1,
    EventParkedV1,
    EventRejectedV1,
    LedgerSealedV1,
    SubledgerRestatedV1,
)
from schemas.payments import PaymentCapturedV1
from schemas.payouts import PayoutFailedV1, PayoutPaidV1
from schemas.refunds import RefundFailedV1, RefundSucceededV1
from schemas.transfers import TransferCreatedV1, TransferReversedV1

Kind = Literal["fact", "request", "create"]

RESOLUTION = "resolution"
"""The field of the journal, never of the wire, that says what the resolvers answered."""

NEVER_IN_FINGERPRINT = frozenset({"description", "metadata", "failure_code", "respond_by", RESOLUTION})
"""The fields that may differ between two deliveries of the same event."""


@dataclass(frozen=True, slots=True)
class EventType:
    """What is known about one type of event.

    Shape: `topic` is the short name; `natural_key` says, for people, what makes two of them the same. Without one,
    `idempotencykey` is required. `resolved` is the model of one that is kept with what the resolvers answered.
    """

    name: str
    topic: str
    model: type[Wire]
    kind: Kind
    natural_key: str | None = None
    resolved: type[Wire] | None = None

    @property
    def needs_key(self) -> bool:
        """Whether a publisher must give an `idempotencykey`."""
        return self.natural_key is None

    @property
    def family(self) -> str:
        """The type without its version."""
        return family_of(self.name)

    @property
    def defaults(self) -> dict[str, Any]:
        """The value that a field has when it is left out, for the fields that have one."""
        fields = self.model.model_fields.items()
        return {name: field.default for name, field in fields if not field.is_required() and field.default is not None}


def family_of(event_type: str) -> str:
    """`payment.captured` for `payment.captured.v1`."""
    return event_type.rpartition(".v")[0] or event_type


_LATER = "authorization:{provider}:{external_id}:{event_id}"
_TYPES = (
    EventType("payment.captured.v1", "payments", PaymentCapturedV1, "fact", "payment:{payment_id}:{capture_id}"),
    EventType("refund.succeeded.v1", "refunds", RefundSucceededV1, "fact", "refund:{refund_id}"),
    EventType("refund.failed.v1", "refunds", RefundFailedV1, "fact", "refund_failed:{refund_id}"),
    EventType("transfer.created.v1", "transfers", TransferCreatedV1, "fact", "transfer:{transfer_id}"),
    EventType(
        "transfer.reversed.v1", "transfers", TransferReversedV1, "fact", "transfer_reversed:{transfer_id}:{reversal_id}"
    ),
    EventType("payout.paid.v1", "payouts", PayoutPaidV1, "fact", "payout:{payout_id}"),
    EventType("payout.failed.v1", "payouts", PayoutFailedV1, "fact", "payout_failed:{payout_id}"),
    EventType("dispute.opened.v1", "disputes", DisputeOpenedV1, "fact", "dispute:{dispute_id}"),
    EventType("dispute.won.v1", "disputes", DisputeWonV1, "fact", "dispute_won:{dispute_id}:{outcome_id}"),
    EventType("dispute.lost.v1", "disputes", DisputeLostV1, "fact", "dispute_lost:{dispute_id}:{outcome_id}"),
    EventType(
        "dispute.reopened.v1", "disputes", DisputeReopenedV1, "fact", "dispute_reopened:{dispute_id}:{reopening_id}"
    ),
    EventType("hold.created.v1", "authorizations", HoldCreatedV1, "request", "hold:{hold_id}"),
    EventType("hold.adjusted.v1", "authorizations", HoldAdjustedV1, "request", "adjust:{hold_id}:{adjustment_id}"),
    EventType("hold.captured.v1", "authorizations", HoldCapturedV1, "request", "capture:{hold_id}:{capture_id}"),
    EventType("hold.voided.v1", "authorizations", HoldVoidedV1, "request", "void:{hold_id}"),
    EventType(
        "authorization.requested.v1",
        "authorizations",
        AuthorizationRequestedV1,
        "request",
        "authorization:{provider}:{external_id}",
        resolved=JournaledRequestV1,
    ),
    EventType(
        "authorization.advised.v1",
        "authorizations",
        AuthorizationAdvisedV1,
        "fact",
        "authorization_advice:{provider}:{external_id}",
        resolved=JournaledAdviceV1,
    ),
    EventType("authorization.confirmed.v1", "authorizations", AuthorizationConfirmedV1, "fact", _LATER),
    EventType("authorization.adjusted.v1", "authorizations", AuthorizationAdjustedV1, "fact", _LATER),
    EventType("authorization.captured.v1", "authorizations", AuthorizationCapturedV1, "fact", _LATER),
    EventType("authorization.refunded.v1", "authorizations", AuthorizationRefundedV1, "fact", _LATER),
    EventType("authorization.released.v1", "authorizations", AuthorizationReleasedV1, "fact", _LATER),
    EventType("account.create.v1", "commands", AccountCreateV1, "create", "account:{name}"),
    EventType("account.update.v1", "commands", AccountUpdateV1, "request"),
    EventType("account.close.v1", "commands", AccountCloseV1, "request"),
    EventType("entry.post.v1", "commands", EntryPostV1, "request"),
    EventType("entry.reverse.v1", "commands", EntryReverseV1, "request", "reverse:{entry_id}"),
    EventType("period.close.v1", "commands", PeriodCloseV1, "request"),
    EventType("expense_category.create.v1", "commands", ExpenseCategoryCreateV1, "create", "expense_category:{code}"),
    EventType(
        "line_of_credit.create.v1", "commands", LineOfCreditCreateV1, "create", "line_of_credit:{line_of_credit_id}"
    ),
    EventType("line_of_credit.set_limit.v1", "commands", LineOfCreditSetLimitV1, "request"),
    EventType("line_of_credit.reset.v1", "commands", LineOfCreditResetV1, "request"),
    EventType("line_of_credit.terminate.v1", "commands", LineOfCreditTerminateV1, "request"),
    EventType("card.assign.v1", "commands", CardAssignV1, "request"),
    EventType("card.unassign.v1", "commands", CardUnassignV1, "request"),
    EventType("tenant.create.v1", "commands", TenantCreateV1, "create", "tenant:{tenantid}"),
)

EVENT_TYPES: Mapping[str, EventType] = MappingProxyType({event_type.name: event_type for event_type in _TYPES})


# --- out ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutputType:
    """Where one type of output goes. Shape: `topic` is the short name, `key` a template of the record's key."""

    name: str
    topic: str
    model: type[Wire]
    key: str


_AUTHORIZATION = "{provider}:{external_id}"
_OUTPUT_TYPES = (
    OutputType("balance.changed.v1", "balances", BalanceChangedV1, "{account_id}:{currency}"),
    OutputType("entry.recorded.v1", "entries", EntryRecordedV1, "{tenantid}"),
    OutputType("subledger.restated.v1", "entries", SubledgerRestatedV1, "{tenantid}"),
    OutputType("authorization.decided.v1", "decisions", AuthorizationDecidedV1, _AUTHORIZATION),
    OutputType("authorization.changed.v1", "decisions", AuthorizationChangedV1, _AUTHORIZATION),
    OutputType("event.rejected.v1", "outcomes", EventRejectedV1, "{tenantid}"),
    OutputType("event.parked.v1", "outcomes", EventParkedV1, "{tenantid}"),
    OutputType("command.applied.v1", "outcomes", CommandAppliedV1, "{tenantid}"),
    OutputType("ledger.sealed.v1", "seals", LedgerSealedV1, "{shard}"),
)
OUTPUT_TYPES: Mapping[str, OutputType] = MappingProxyType({output.name: output for output in _OUTPUT_TYPES})
