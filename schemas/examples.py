"""One example of each type of event, in and out, all from one morning of a small marketplace."""

from __future__ import annotations

from typing import Any

from schemas.registry import EVENT_TYPES, OUTPUT_TYPES

TENANT = "acme"
TIME = "2026-03-01T09:30:00Z"
_RECORDED = "2026-03-01T09:30:01.250000Z"
_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ENTRY = "00010002-0000-8000-8000-00a400000000"
_CASH = "00010002-0000-8000-8000-00a400000001"
_CUSTOMER = "00010002-0000-8000-8000-00a400000002"
_FEES = "00010002-0000-8000-8000-00a400000003"
_CAUSE = {"type": "payment.captured.v1", "id": "evt-1001", "source": "https://psp.example"}
_AUTHORIZATION = {"provider": "issuer", "external_id": "auth-77"}
_CARD_PAYMENT = {
    "amount": 6000,
    "currency": "EUR",
    "card_id": "card-8",
    "merchant": {
        "merchant_id": "mer-3",
        "acquirer_id": "acq-1",
        "mcc": "5812",
        "name": "Chez Louise",
        "country": "FRA",
        "postal_code": "75011",
        "city": "Paris",
    },
    "account": "card:8",
}
_OWNER = {"owner_type": "employee", "owner_ref": "3f0c6f1e-8f6f-4c39-9a3e-5d1f7c1b2a44"}
_AUTHORIZATION_CAUSE = {"type": "authorization.requested.v1", "id": "evt-1077", "source": "https://issuer.example"}


def _event(name: str, **where: Any) -> dict[str, Any]:
    return {"type": name, "id": "evt-1001", "source": "https://psp.example", **where, "partition": 2, "offset": 41}


_INPUTS: dict[str, dict[str, Any]] = {
    "payment.captured.v1": {
        "payment_id": "pay_1001",
        "amount": 12500,
        "currency": "EUR",
        "customer_id": "cus_7",
        "fees": 375,
        "description": "Order 5512",
        "metadata": {"order_id": "5512", "items": 3},
    },
    "refund.succeeded.v1": {
        "refund_id": "re_2001",
        "payment_id": "pay_1001",
        "amount": 2500,
        "currency": "EUR",
        "customer_id": "cus_7",
    },
    "refund.failed.v1": {"refund_id": "re_2001", "failure_code": "expired_card"},
    "transfer.created.v1": {
        "transfer_id": "tr_3001",
        "amount": 9000,
        "currency": "EUR",
        "customer_id": "cus_7",
        "merchant_id": "mer_3",
    },
    "transfer.reversed.v1": {"transfer_id": "tr_3001", "reversal_id": "1", "amount": 1000},
    "payout.paid.v1": {"payout_id": "po_4001", "amount": 8000, "currency": "EUR", "merchant_id": "mer_3"},
    "payout.failed.v1": {"payout_id": "po_4001", "failure_code": "account_closed"},
    "dispute.opened.v1": {
        "dispute_id": "dp_5001",
        "payment_id": "pay_1001",
        "amount": 5000,
        "currency": "EUR",
        "customer_id": "cus_7",
        "fees": 1500,
    },
    "dispute.won.v1": {"dispute_id": "dp_5001", "outcome_id": "1", "amount": 2000},
    "dispute.lost.v1": {"dispute_id": "dp_5001", "outcome_id": "2", "charge_to": "platform"},
    "dispute.reopened.v1": {"dispute_id": "dp_5001", "reopening_id": "1", "amount": 2000, "fees": 1500},
    "hold.created.v1": {
        "hold_id": "hold_6001",
        "account": "wallet:42",
        "amount": 5000,
        "currency": "EUR",
        "direction": "out",
        "expires_at": "2026-03-08T09:30:00Z",
    },
    "hold.adjusted.v1": {"hold_id": "hold_6001", "adjustment_id": "1", "amount": 6000},
    "hold.captured.v1": {"hold_id": "hold_6001", "amount": 2500, "final": False, "capture_id": "1"},
    "hold.voided.v1": {"hold_id": "hold_6001"},
    "authorization.requested.v1": {
        **_AUTHORIZATION,
        **_CARD_PAYMENT,
        "partial_approval": True,
        "respond_by": "2026-03-01T09:30:02Z",
    },
    "authorization.advised.v1": {**_AUTHORIZATION, **_CARD_PAYMENT},
    "authorization.confirmed.v1": {**_AUTHORIZATION, "event_id": "1"},
    "authorization.adjusted.v1": {**_AUTHORIZATION, "event_id": "2", "amount": 7200},
    "authorization.captured.v1": {**_AUTHORIZATION, "event_id": "3", "amount": 4500},
    "authorization.refunded.v1": {**_AUTHORIZATION, "event_id": "4", "amount": 1200},
    "authorization.released.v1": {**_AUTHORIZATION, "event_id": "5", "reason": "cancelled"},
    "account.create.v1": {
        "name": "wallet:42",
        "type": "liability",
        "currency": "EUR",
        "parent": "wallets",
        "floor": 0,
        "description": "Wallet of customer 42",
    },
    "account.update.v1": {"name": "wallet:42", "status": "frozen", "ceiling": {"EUR": 1000000}, "parent": None},
    "account.close.v1": {"name": "wallet:42"},
    "entry.post.v1": {
        "postings": [
            {"account": "platform:cash", "amount": 5000, "currency": "EUR"},
            {"account": "wallet:42", "amount": -5000, "currency": "EUR", "expect_version": 3},
        ],
        "description": "Top-up",
        "effective_at": "2026-03-01T09:00:00Z",
    },
    "entry.reverse.v1": {"entry_id": _ENTRY, "description": "Posted twice by hand"},
    "period.close.v1": {"through": "2026-02-28"},
    "expense_category.create.v1": {
        "code": "meals",
        "name": "Meals",
        "match": [{"mccs": ["5811-5814"], "countries": ["FRA", "BEL"]}],
    },
    "line_of_credit.create.v1": {
        "line_of_credit_id": "line-12",
        **_OWNER,
        "expense_category": "meals",
        "currency": "EUR",
        "credits_limit": 50000,
    },
    "line_of_credit.set_limit.v1": {"line_of_credit_id": "line-12", "credits_limit": 60000},
    "line_of_credit.reset.v1": {"line_of_credit_id": "line-12", "credits_limit": 50000, "expensed_credits": 0},
    "line_of_credit.terminate.v1": {"line_of_credit_id": "line-12"},
    "card.assign.v1": {"card_id": "card-8", **_OWNER},
    "card.unassign.v1": {"card_id": "card-8", **_OWNER},
    "tenant.create.v1": {"shard": 2},
}

_OUTPUTS: dict[str, dict[str, Any]] = {
    "balance.changed.v1": {
        "account_id": _CUSTOMER,
        "account": "customer_balance:cus_7",
        "currency": "EUR",
        "type": "liability",
        "version": 1,
        "posted": -12125,
        "pending": 0,
        "held": 0,
        "available": 12125,
        "change": {"posted": -12125, "held": 0, "pending": 0},
        "entry_id": _ENTRY,
        "cause": _CAUSE,
        "effective_at": TIME,
        "recorded_at": _RECORDED,
    },
    "entry.recorded.v1": {
        "entry_id": _ENTRY,
        "seq": 41,
        "kind": "payment",
        "description": "Order 5512",
        "references": {"payment_id": "pay_1001"},
        "metadata": {"order_id": "5512", "items": 3},
        "effective_at": TIME,
        "recorded_at": _RECORDED,
        "occurred_at": TIME,
        "pending": False,
        "breaches": [],
        "cause": _CAUSE,
        "postings": [
            {
                "account_id": _CASH,
                "account": "platform:cash",
                "amount": 12500,
                "currency": "EUR",
                "posted_after": 12500,
                "version": 1,
            },
            {
                "account_id": _CUSTOMER,
                "account": "customer_balance:cus_7",
                "amount": -12125,
                "currency": "EUR",
                "posted_after": -12125,
                "version": 1,
            },
            {
                "account_id": _FEES,
                "account": "platform:fees",
                "amount": -375,
                "currency": "EUR",
                "posted_after": -375,
                "version": 1,
            },
        ],
    },
    "subledger.restated.v1": {
        "subledger_id": "loan-9",
        "from_entry_id": _ENTRY,
        "from_created_at": "2026-02-20T10:30:00Z",
        "count": 2,
        "shift": -2000,
        "balance": 10000,
    },
    "authorization.decided.v1": {
        **_AUTHORIZATION,
        "decision": "approved",
        "decided_by": "ledger",
        "reason": "partial",
        "reasons": ["insufficient_credits"],
        "amount": 6000,
        "approved_amount": 4500,
        "currency": "EUR",
        "expense_categories": ["meals"],
        "lines_of_credit": [{"id": "line-12", "available": 0}],
        "account": {"name": "card:8", "posted": -20000, "held": 4500, "available": 15500},
        "hold_amount": 4500,
        "cause": _AUTHORIZATION_CAUSE,
        "decided_at": _RECORDED,
    },
    "authorization.changed.v1": {
        **_AUTHORIZATION,
        "status": "captured",
        "confirmed": True,
        "authorized": 4500,
        "captured": 4500,
        "refunded": 0,
        "cause": {**_AUTHORIZATION_CAUSE, "type": "authorization.captured.v1"},
        "recorded_at": _RECORDED,
    },
    "event.rejected.v1": {
        "code": "idempotency_conflict",
        "message": "payment pay_1001 is known with other data",
        "differs": ["amount"],
        "event": _event("payment.captured.v1", idempotency_key="order-5512", topic="ledger.payments"),
    },
    "event.parked.v1": {
        "code": "payment_not_found",
        "waits_for": "payment pay_1002",
        "event": _event("refund.succeeded.v1", topic="ledger.refunds"),
    },
    "command.applied.v1": {
        "event": _event("entry.post.v1", idempotency_key="top-up-5513", topic="ledger.commands"),
        "result": {"entry_id": _ENTRY},
    },
    "ledger.sealed.v1": {
        "epoch": 1,
        "shard": 2,
        "seq_first": 41,
        "seq_last": 44,
        "counts": {"ledger.balances": 3, "ledger.entries": 1},
        "head_hash": "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592",
    },
}


def example(event_type: str) -> dict[str, Any]:
    """Give a whole structured event of this type."""
    known = EVENT_TYPES.get(event_type)
    if known is None:
        return _output_envelope(event_type) | {"data": _OUTPUTS[event_type]}
    key = {"idempotencykey": f"{known.family}-5513"} if known.needs_key else {}
    return {
        "specversion": "1.0",
        "id": f"evt-{1001 + list(_INPUTS).index(event_type)}",
        "source": "https://psp.example",
        "type": event_type,
        "time": TIME,
        "tenantid": TENANT,
        **key,
        "traceparent": _TRACE,
        "data": _INPUTS[event_type],
    }


def example_headers(event_type: str) -> dict[str, str]:
    """Give the headers of an output of this type; inputs in structured mode need none."""
    if event_type not in OUTPUT_TYPES:
        return {}
    headers = {"content-type": "application/cloudevents+json", "ce_type": event_type}
    if event_type == "ledger.sealed.v1":
        return headers
    return headers | {"ledger-epoch": "1", "ledger-shard": "2", "ledger-seq": "41", "traceparent": _TRACE}


def _output_envelope(event_type: str) -> dict[str, Any]:
    is_seal = event_type == "ledger.sealed.v1"
    envelope = {"specversion": "1.0", "id": "seal-1-2-44" if is_seal else "1-2-41", "source": "ledgerstream"}
    envelope |= {"type": event_type, "time": _RECORDED}
    if is_seal:
        return envelope
    return envelope | {"tenantid": TENANT, "traceparent": _TRACE, "datacontenttype": "application/json"}
