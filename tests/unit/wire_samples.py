"""Records as a publisher would send them, for the tests of what is read."""

from __future__ import annotations

import json
from typing import Any

from schemas.registry import EVENT_TYPES
from schemas.wire import Malformed, WireEvent, read

PAYMENT: dict[str, Any] = {
    "payment_id": "pay_1",
    "amount": 1234,
    "currency": "EUR",
    "customer_id": "cus_1",
}

AUTHORIZATION: dict[str, Any] = {"provider": "issuer", "external_id": "au_1"}
CARD_PAYMENT: dict[str, Any] = AUTHORIZATION | {
    "amount": 6000,
    "currency": "EUR",
    "card_id": "card_1",
    "merchant": {"merchant_id": "mer_1", "acquirer_id": "acq_1", "mcc": "5812", "name": "Diner", "country": "FRA"},
}
LATER = AUTHORIZATION | {"event_id": "ev_1"}
OWNER: dict[str, Any] = {"owner_type": "employee", "owner_ref": "3f0c6f1e-8f6f-4c39-9a3e-5d1f7c1b2a44"}
LINE = {"line_of_credit_id": "line_1"}

# The least that each type needs.
LEAST: dict[str, dict[str, Any]] = {
    "payment.captured.v1": PAYMENT,
    "refund.succeeded.v1": {"refund_id": "re_1", "amount": 500, "currency": "EUR", "customer_id": "cus_1"},
    "refund.failed.v1": {"refund_id": "re_1"},
    "transfer.created.v1": {
        "transfer_id": "tr_1",
        "amount": 900,
        "currency": "EUR",
        "customer_id": "cus_1",
        "merchant_id": "mer_1",
    },
    "transfer.reversed.v1": {"transfer_id": "tr_1"},
    "payout.paid.v1": {"payout_id": "po_1", "amount": 700, "currency": "EUR", "merchant_id": "mer_1"},
    "payout.failed.v1": {"payout_id": "po_1"},
    "dispute.opened.v1": {"dispute_id": "dp_1", "amount": 500, "currency": "EUR", "customer_id": "cus_1"},
    "dispute.won.v1": {"dispute_id": "dp_1"},
    "dispute.lost.v1": {"dispute_id": "dp_1"},
    "dispute.reopened.v1": {"dispute_id": "dp_1", "reopening_id": "ro_1", "amount": 500},
    "account.create.v1": {"name": "wallet:1", "type": "liability"},
    "account.update.v1": {"name": "wallet:1"},
    "account.close.v1": {"name": "wallet:1"},
    "entry.post.v1": {"postings": []},
    "entry.reverse.v1": {"entry_id": "entry-1"},
    "period.close.v1": {"through": "2026-02-28"},
    "hold.created.v1": {"hold_id": "ho_1", "account": "wallet:1", "amount": 500, "currency": "EUR"},
    "hold.adjusted.v1": {"hold_id": "ho_1", "adjustment_id": "ad_1", "amount": 400},
    "hold.captured.v1": {"hold_id": "ho_1"},
    "hold.voided.v1": {"hold_id": "ho_1"},
    "authorization.requested.v1": CARD_PAYMENT,
    "authorization.advised.v1": CARD_PAYMENT,
    "authorization.confirmed.v1": LATER,
    "authorization.adjusted.v1": LATER | {"amount": 7000},
    "authorization.captured.v1": LATER | {"amount": 6000},
    "authorization.refunded.v1": LATER | {"amount": 100},
    "authorization.released.v1": LATER | {"reason": "cancelled"},
    "expense_category.create.v1": {"code": "meals", "name": "Meals"},
    "line_of_credit.create.v1": LINE | OWNER | {"expense_category": "meals", "currency": "EUR"},
    "line_of_credit.set_limit.v1": LINE | {"credits_limit": 500},
    "line_of_credit.reset.v1": LINE | {"credits_limit": 500, "expensed_credits": 0},
    "line_of_credit.terminate.v1": LINE,
    "card.assign.v1": {"card_id": "card_1"} | OWNER,
    "card.unassign.v1": {"card_id": "card_1"} | OWNER,
    "tenant.create.v1": {},
}


def envelope(event_type: str = "payment.captured.v1", **attributes: Any) -> dict[str, Any]:
    """A structured event; an attribute given as `...` is left out."""
    whole = {
        "specversion": "1.0",
        "id": "evt-1",
        "source": "https://psp.example",
        "type": event_type,
        "time": "2026-03-01T09:30:00Z",
        "tenantid": "acme",
        "idempotencykey": "key-1",
        "data": LEAST.get(event_type, {}),
    } | attributes
    return {name: value for name, value in whole.items() if value is not ...}


def record(event_type: str = "payment.captured.v1", **attributes: Any) -> bytes:
    return json.dumps(envelope(event_type, **attributes)).encode()


def topic_of(event_type: str) -> str:
    return EVENT_TYPES[event_type].topic


def read_data(data: Any, event_type: str = "payment.captured.v1") -> WireEvent | Malformed:
    return read(record(event_type, data=data), (), topic_of(event_type))


def read_envelope(**attributes: Any) -> WireEvent | Malformed:
    return read(record(**attributes), (), "payments")


def event(result: WireEvent | Malformed) -> WireEvent:
    assert isinstance(result, WireEvent), result
    return result


def malformed(result: WireEvent | Malformed) -> str:
    assert isinstance(result, Malformed), result
    assert result.code == "malformed"
    return result.message
