"""Save what stays open after money events: captured, refunded, transferred, paid out, disputed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asyncpg.pgproto import pgproto

from domain.books import Books
from domain.flows import Payment
from domain.keys import Key
from infra.postgres.writes import Target, Writes


def _only(key: str, moves: str) -> str:
    """Of what is known only `moves` ever changes."""
    return f"ON CONFLICT (shard, {key}) DO UPDATE SET {moves} = excluded.{moves}"


_KNOWN_PAYMENT = """
        ON CONFLICT (shard, payment_key, currency, customer_id) DO UPDATE
        SET (captured, refunded) = ROW ({sums})
"""
_PAYMENTS = Target(
    "payments",
    {
        "shard": "smallint",
        "payment_key": "uuid",
        "currency": "text",
        "customer_id": "text",
        "captured": "numeric",
        "refunded": "numeric",
        "tenant_id": "text",
        "provider": "text",
        "payment_id": "text",
        "cash_account_id": "uuid",
    },
    _KNOWN_PAYMENT.format(sums="excluded.captured, excluded.refunded"),
)
_PAYMENTS_ADDED_TO = Target(
    "payments",
    _PAYMENTS.columns | {"captured": "bigint", "refunded": "bigint"},
    _KNOWN_PAYMENT.format(sums="payments.captured + excluded.captured, payments.refunded + excluded.refunded"),
)
_NEW_PAYMENTS = replace(_PAYMENTS_ADDED_TO, conflict="")
_REFUNDS = Target(
    "refunds",
    {
        "shard": "smallint",
        "refund_key": "uuid",
        "payment_key": "uuid",
        "tenant_id": "text",
        "provider": "text",
        "refund_id": "text",
        "payment_id": "text",
        "currency": "text",
        "customer_id": "text",
        "customer_account_id": "uuid",
        "cash_account_id": "uuid",
        "amount": "bigint",
        "failed": "boolean",
    },
    _only("refund_key", "failed"),
)
_TRANSFERS = Target(
    "transfers",
    {
        "shard": "smallint",
        "transfer_key": "uuid",
        "tenant_id": "text",
        "provider": "text",
        "transfer_id": "text",
        "currency": "text",
        "customer_account_id": "uuid",
        "merchant_account_id": "uuid",
        "amount": "bigint",
        "reversed": "bigint",
    },
    _only("transfer_key", "reversed"),
)
_PAYOUTS = Target(
    "payouts",
    {
        "shard": "smallint",
        "payout_key": "uuid",
        "tenant_id": "text",
        "provider": "text",
        "payout_id": "text",
        "currency": "text",
        "merchant_account_id": "uuid",
        "cash_account_id": "uuid",
        "amount": "bigint",
        "failed": "boolean",
    },
    _only("payout_key", "failed"),
)
_DISPUTES = Target(
    "disputes",
    {
        "shard": "smallint",
        "dispute_key": "uuid",
        "tenant_id": "text",
        "provider": "text",
        "dispute_id": "text",
        "payment_id": "text",
        "currency": "text",
        "customer_id": "text",
        "cash_account_id": "uuid",
        "held": "bigint",
    },
    _only("dispute_key", "held"),
)


async def save_flows(writes: Writes, books: Books, *, all_loaded: bool = False) -> None:
    """Write what was captured, refunded, transferred, paid out and disputed.

    `all_loaded`: a payment that wasn't loaded isn't there yet.
    """
    _save_payments(writes, books, all_loaded=all_loaded)
    writes.insert(_REFUNDS, _refund_rows(books))
    writes.insert(_TRANSFERS, _transfer_rows(books))
    writes.insert(_PAYOUTS, _payout_rows(books))
    writes.insert(_DISPUTES, _dispute_rows(books))


def _save_payments(writes: Writes, books: Books, *, all_loaded: bool) -> None:
    touched = [(key, payment) for key, payments in books.payments.touched.items() for payment in payments]
    fresh = [_payment_row(books.shard, key, payment) for key, payment in touched if not payment.loaded]
    known = [_payment_row(books.shard, key, payment) for key, payment in touched if payment.loaded]
    # A payment that nothing in the batch follows was not loaded: what it has is added to.
    writes.insert(_NEW_PAYMENTS if all_loaded else _PAYMENTS_ADDED_TO, fresh)
    writes.insert(_PAYMENTS, known)


def _payment_row(shard: int, key: Key, payment: Payment) -> tuple[Any, ...]:
    return (
        shard,
        pgproto.UUID(key),
        payment.currency,
        payment.customer_id,
        payment.captured,
        payment.refunded,
        payment.tenant_id,
        payment.provider,
        payment.payment_id,
        payment.cash_account_id,
    )


def _refund_rows(books: Books) -> list[tuple[Any, ...]]:
    return [
        (
            books.shard,
            pgproto.UUID(key),
            None if refund.payment_key is None else pgproto.UUID(refund.payment_key),
            refund.tenant_id,
            refund.provider,
            refund.refund_id,
            refund.payment_id,
            refund.currency,
            refund.customer_id,
            refund.customer_account_id,
            refund.cash_account_id,
            refund.amount,
            refund.failed,
        )
        for key, refund in books.refunds.touched.items()
    ]


def _transfer_rows(books: Books) -> list[tuple[Any, ...]]:
    return [
        (
            books.shard,
            pgproto.UUID(key),
            transfer.tenant_id,
            transfer.provider,
            transfer.transfer_id,
            transfer.currency,
            transfer.customer_account_id,
            transfer.merchant_account_id,
            transfer.amount,
            transfer.reversed,
        )
        for key, transfer in books.transfers.touched.items()
    ]


def _payout_rows(books: Books) -> list[tuple[Any, ...]]:
    return [
        (
            books.shard,
            pgproto.UUID(key),
            payout.tenant_id,
            payout.provider,
            payout.payout_id,
            payout.currency,
            payout.merchant_account_id,
            payout.cash_account_id,
            payout.amount,
            payout.failed,
        )
        for key, payout in books.payouts.touched.items()
    ]


def _dispute_rows(books: Books) -> list[tuple[Any, ...]]:
    return [
        (
            books.shard,
            pgproto.UUID(key),
            dispute.tenant_id,
            dispute.provider,
            dispute.dispute_id,
            dispute.payment_id,
            dispute.currency,
            dispute.customer_id,
            dispute.cash_account_id,
            dispute.held,
        )
        for key, dispute in books.disputes.touched.items()
    ]
