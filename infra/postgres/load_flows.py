"""Load what stays open after money events: payments, refunds, transfers, payouts, disputes; and who waits for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import asyncpg
from asyncpg.pgproto import pgproto

from domain.accounts import customer_balance
from domain.books import Books
from domain.flows import Dispute, Payment, Payout, Refund, Transfer
from domain.keys import Key
from domain.needs import Needs
from infra.postgres.writes import Connection


async def load_flows(connection: Connection, books: Books, needs: Needs) -> None:
    for row in await _by_key(connection, "refunds", "refund_key", books, needs.refunds):
        payment_key = None if row["payment_key"] is None else Key(row["payment_key"].bytes)
        refund = Refund(
            row["tenant_id"],
            row["provider"],
            row["refund_id"],
            row["payment_id"],
            payment_key,
            row["currency"],
            row["customer_id"],
            customer_account_id=row["customer_account_id"],
            cash_account_id=row["cash_account_id"],
            amount=row["amount"],
            failed=row["failed"],
        )
        books.refunds.load(Key(row["refund_key"].bytes), refund)
        if payment_key is not None:
            needs.payments.add(payment_key)
        needs.account_ids |= {refund.customer_account_id, refund.cash_account_id}
    await _load_payments(connection, books, needs)
    await _load_transfers_and_payouts(connection, books, needs)
    for row in await _by_key(connection, "disputes", "dispute_key", books, needs.disputes):
        dispute = Dispute(
            row["tenant_id"],
            row["provider"],
            row["dispute_id"],
            row["payment_id"],
            row["currency"],
            row["customer_id"],
            row["cash_account_id"],
            held=row["held"],
        )
        books.disputes.load(Key(row["dispute_key"].bytes), dispute)
        needs.account_ids.add(dispute.cash_account_id)
        # What is lost may be charged to the customer, whom the later events don't name.
        needs.accounts.add((dispute.tenant_id, customer_balance(dispute.customer_id)))


async def _load_payments(connection: Connection, books: Books, needs: Needs) -> None:
    for row in await _by_key(connection, "payments", "payment_key", books, needs.payments):
        key = Key(row["payment_key"].bytes)
        payment = Payment(
            row["tenant_id"],
            row["provider"],
            row["payment_id"],
            row["currency"],
            row["customer_id"],
            row["cash_account_id"],
            captured=int(row["captured"]),
            refunded=int(row["refunded"]),
            loaded=True,
        )
        payments = books.payments.get(key)
        if payments is None:
            books.payments.load(key, [payment])
        else:
            payments.append(payment)
        needs.account_ids.add(payment.cash_account_id)


async def _load_transfers_and_payouts(connection: Connection, books: Books, needs: Needs) -> None:
    for row in await _by_key(connection, "transfers", "transfer_key", books, needs.transfers):
        transfer = Transfer(
            row["tenant_id"],
            row["provider"],
            row["transfer_id"],
            row["currency"],
            customer_account_id=row["customer_account_id"],
            merchant_account_id=row["merchant_account_id"],
            amount=row["amount"],
            reversed=row["reversed"],
        )
        books.transfers.load(Key(row["transfer_key"].bytes), transfer)
        needs.account_ids |= {transfer.customer_account_id, transfer.merchant_account_id}
    for row in await _by_key(connection, "payouts", "payout_key", books, needs.payouts):
        payout = Payout(
            row["tenant_id"],
            row["provider"],
            row["payout_id"],
            row["currency"],
            merchant_account_id=row["merchant_account_id"],
            cash_account_id=row["cash_account_id"],
            amount=row["amount"],
            failed=row["failed"],
        )
        books.payouts.load(Key(row["payout_key"].bytes), payout)
        needs.account_ids |= {payout.merchant_account_id, payout.cash_account_id}


_BY_KEY = {
    table: f"SELECT * FROM {table} WHERE shard = $1 AND {column} = ANY($2::uuid[])"
    for table, column in {
        "payments": "payment_key",
        "refunds": "refund_key",
        "transfers": "transfer_key",
        "payouts": "payout_key",
        "disputes": "dispute_key",
    }.items()
}


async def _by_key(
    connection: Connection, table: str, column: str, books: Books, keys: Iterable[Key]
) -> Sequence[asyncpg.Record]:
    wanted = [pgproto.UUID(key) for key in keys]
    return await connection.fetch(_BY_KEY[table], books.shard, wanted) if wanted else ()


async def count_waiting(connection: Connection, books: Books, needs: Needs) -> None:
    """Count who waits already for what is still not there: no more than so many may."""
    missing = [
        key
        for keys, shelf in (
            (needs.payments, books.payments),
            (needs.refunds, books.refunds),
            (needs.transfers, books.transfers),
            (needs.payouts, books.payouts),
            (needs.disputes, books.disputes),
        )
        for key in keys
        if shelf.get(key) is None
    ]
    if not missing:
        return
    rows = await connection.fetch(
        """
        SELECT waits_for, count(*)
        FROM parked
        WHERE shard = $1 AND waits_for = ANY($2::uuid[])
        GROUP BY waits_for
        """,
        books.shard,
        [pgproto.UUID(key) for key in missing],
    )
    for waits_for, count in rows:
        books.waiting_count[Key(waits_for.bytes)] = count
