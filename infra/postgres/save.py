"""Save: all effects of a decided batch, in as many statements whatever its size."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import orjson
from asyncpg.pgproto import pgproto

from domain.accounts import Account, Balance
from domain.books import Books
from domain.decide import Decided
from domain.events import Applied, Entry, Handled, Parked, Rejected
from domain.flows import Payment
from domain.keys import Key
from domain.money import AMOUNT_MAX
from infra.outputs import OutputWriter
from infra.postgres.load import Connection
from infra.records import DeadLetter, OffsetSwap, Origin
from schemas.fingerprint import FINGERPRINT_VERSION

_EVENTS = [
    "shard",
    "seq",
    "outputs",
    "outcome",
    "resumes",
    "tenant_id",
    "type",
    "source",
    "event_id",
    "idempotency_key",
    "traceparent",
    "occurred_at",
    "recorded_at",
    "topic",
    "partition",
    "offset",
    "fingerprint",
    "code",
    "message",
    "waits_for",
    "data",
]
_ENTRIES = [
    "shard",
    "seq",
    "entry_id",
    "event_seq",
    "tenant_id",
    "kind",
    "description",
    "payment_id",
    "refund_id",
    "transfer_id",
    "payout_id",
    "dispute_id",
    "metadata",
    "effective_at",
    "occurred_at",
    "recorded_at",
    "reverses",
    "pending",
    "breaches",
]
_POSTINGS = ["shard", "seq", "leg", "account_id", "currency", "amount", "posted_after", "version", "effective_at"]
_KEYS = ["shard", "key", "seq", "fingerprint", "fingerprint_version"]
_DEAD_LETTERS = [
    "shard",
    "seq",
    "topic",
    "topic_id",
    "partition",
    "offset",
    "timestamp_ms",
    "code",
    "message",
    "key",
    "value",
    "headers",
    "recorded_at",
]
_ACCOUNTS = [
    "shard",
    "account_id",
    "tenant_id",
    "name",
    "type",
    "currency",
    "parent_id",
    "floors",
    "ceilings",
    "status",
    "description",
    "metadata",
]
_PARKED = ["shard", "seq", "waits_for", "expires_at", "arrived"]


class OffsetMovedError(Exception):
    """The read position isn't where this reader left it: somebody else has the partition, or the database went back."""


class TenantMovedError(Exception):
    """A tenant was registered on another shard in the meantime: resolve again."""


async def save_journal(connection: Connection, books: Books, decided: Decided) -> None:
    """Write what came in, the entries and their postings, and the keys they claim."""
    event_rows, entry_rows, posting_rows = [], [], []
    for handled in decided.handled:
        event_rows.append(_event_row(books, handled))
        outcome = handled.outcome
        if isinstance(outcome, Applied) and outcome.entry is not None:
            entry = outcome.entry
            entry_rows.append(_entry_row(books, handled, entry))
            posting_rows += _posting_rows(books.shard, entry)
    await _copy(connection, "events", _EVENTS, event_rows)
    await _copy(connection, "entries", _ENTRIES, entry_rows)
    await _copy(connection, "postings", _POSTINGS, posting_rows)
    # Before the claims: a key that was given back may have been claimed again since.
    if books.released:
        await connection.execute(
            "DELETE FROM idempotency_keys WHERE shard = $1 AND key = ANY($2::uuid[])",
            books.shard,
            [pgproto.UUID(key) for key in books.released],
        )
    # In the order of the index, so that neighbours fall on one page.
    claims = sorted(books.new_claims.items())
    await _copy(
        connection,
        "idempotency_keys",
        _KEYS,
        [(books.shard, pgproto.UUID(key), claim.seq, claim.fingerprint, FINGERPRINT_VERSION) for key, claim in claims],
    )


def _event_row(books: Books, handled: Handled) -> tuple[Any, ...]:
    event, outcome = handled.event, handled.outcome
    origin: Origin = event.carried
    record = origin.record
    kind, outputs, code, message, waits_for = "applied", 1, None, None, None
    match outcome:
        case Applied():
            outputs = outcome.outputs
        case Rejected():
            kind, code, message = "rejected", str(outcome.code), outcome.message
        case Parked():
            kind, code, waits_for = "parked", str(outcome.code), outcome.waits_for_text
    return (
        books.shard,
        handled.seq,
        outputs,
        kind,
        handled.resumes,
        event.tenant_id,
        event.type,
        event.source,
        event.event_id,
        event.idempotency_key,
        event.traceparent,
        event.occurred_at,
        books.recorded_at,
        None if record is None else record.topic,
        None if record is None else record.partition,
        None if record is None else record.offset,
        event.fingerprint,
        code,
        message,
        waits_for,
        origin.data.decode(),
    )


def _entry_row(books: Books, handled: Handled, entry: Entry) -> tuple[Any, ...]:
    reference = entry.references.get
    return (
        books.shard,
        entry.seq,
        entry.entry_id,
        handled.seq,
        handled.event.tenant_id,
        entry.kind,
        entry.description,
        reference("payment_id"),
        reference("refund_id"),
        reference("transfer_id"),
        reference("payout_id"),
        reference("dispute_id"),
        None if entry.metadata is None else entry.metadata.decode(),
        entry.effective_at,
        entry.occurred_at,
        books.recorded_at,
        entry.reverses,
        entry.pending,
        entry.breaches,
    )


def _posting_rows(shard: int, entry: Entry) -> list[tuple[Any, ...]]:
    return [
        (shard, entry.seq, leg, account.account_id, currency, amount, posted_after, version, entry.effective_at)
        for leg, (account, currency, amount, posted_after, version) in enumerate(entry.postings)
    ]


# --- accounts and balances ------------------------------------------------------------------------------------------


async def save_accounts(connection: Connection, books: Books, decided: Decided) -> None:
    """Write accounts that were opened or changed, and every balance that moved, once each."""
    await _copy(connection, "accounts", _ACCOUNTS, [_account_row(books.shard, account) for account in books.opened])
    await _update_accounts(connection, books)
    balances: dict[int, tuple[Account, str, Balance]] = {}
    days: dict[tuple[int, str, date], list[Any]] = {}
    for handled in decided.handled:
        outcome = handled.outcome
        if not isinstance(outcome, Applied):
            continue
        for change in outcome.changes:
            balances[id(change.balance)] = (change.account, change.currency, change.balance)
        if outcome.entry is not None:
            _add_days(days, outcome.entry)
    await _save_balances(connection, books, balances.values())
    await _save_days(connection, books.shard, days.values())


def _account_row(shard: int, account: Account) -> tuple[Any, ...]:
    return (
        shard,
        account.account_id,
        account.tenant_id,
        account.name,
        str(account.type),
        account.currency,
        account.parent_id,
        orjson.dumps(account.floors).decode(),
        orjson.dumps(account.ceilings).decode(),
        str(account.status),
        account.description,
        None if account.metadata is None else account.metadata.decode(),
    )


async def _update_accounts(connection: Connection, books: Books) -> None:
    if not books.changed_accounts:
        return
    rows = [_account_row(books.shard, account)[1:] for account in books.changed_accounts.values()]
    await connection.execute(
        """
        INSERT INTO accounts (shard, account_id, tenant_id, name, type, currency, parent_id, floors, ceilings, status,
            description, metadata)
        SELECT $1, account_id, tenant_id, name, type, currency, parent_id, floors::jsonb, ceilings::jsonb, status,
            description, metadata
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::text[])
            AS n (account_id, tenant_id, name, type, currency, parent_id, floors, ceilings, status, description,
                metadata)
        ON CONFLICT (shard, account_id) DO UPDATE
        SET parent_id = excluded.parent_id, floors = excluded.floors, ceilings = excluded.ceilings,
            status = excluded.status, description = excluded.description, metadata = excluded.metadata
        """,
        books.shard,
        *zip(*rows, strict=True),
    )


async def _save_balances(connection: Connection, books: Books, moved: Iterable[tuple[Account, str, Balance]]) -> None:
    # ON CONFLICT always goes by the index; the planner of an UPDATE may go through the whole shard.
    rows = [
        (account.account_id, currency, balance.posted, balance.pending, balance.held, balance.version)
        for account, currency, balance in moved
    ]
    if rows:
        await connection.execute(
            """
            INSERT INTO balances (shard, account_id, currency, posted, pending, held, version, updated_at)
            SELECT $1, n.*, $2
            FROM unnest($3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) AS n
            ON CONFLICT (shard, account_id, currency) DO UPDATE
            SET posted = excluded.posted, pending = excluded.pending, held = excluded.held,
                version = excluded.version, updated_at = excluded.updated_at
            """,
            books.shard,
            books.recorded_at,
            *zip(*rows, strict=True),
        )


def _add_days(days: dict[tuple[int, str, date], list[Any]], entry: Entry) -> None:
    effective_at = entry.effective_at
    day = (effective_at if effective_at.tzinfo is UTC else effective_at.astimezone(UTC)).date()
    for account, currency, amount, _, _ in entry.postings:
        # An account is one object in memory; its id() is cheaper to hash than its UUID.
        place = (id(account), currency, day)
        found = days.get(place)
        if found is None:
            days[place] = [account.account_id, currency, day, amount, entry.seq, entry.seq]
        else:
            found[3] += amount
            found[5] = entry.seq


async def _save_days(connection: Connection, shard: int, rows: Collection[list[Any]]) -> None:
    if not rows:
        return
    # Each balance fits into 64 bits, but what one day adds to it may leave them.
    fits = all(-AMOUNT_MAX <= row[3] <= AMOUNT_MAX for row in rows)
    await connection.execute(
        f"""
        INSERT INTO balance_days AS d (shard, account_id, currency, day, change, seq_first, seq_last)
        SELECT $1, n.*
        FROM unnest($2::uuid[], $3::text[], $4::date[], $5::{"bigint" if fits else "numeric"}[], $6::bigint[],
            $7::bigint[]) AS n
        ON CONFLICT (shard, account_id, currency, day) DO UPDATE
        SET change = d.change + excluded.change, seq_last = excluded.seq_last
        """,
        shard,
        *zip(*rows, strict=True),
    )


# --- what stays open ------------------------------------------------------------------------------------------------


async def save_flows(connection: Connection, books: Books) -> None:
    """Write what was captured, refunded, transferred, paid out and disputed."""
    await _save_payments(connection, books)
    await _save_things(connection, books.shard, "refunds", "refund_key", "failed", _refund_rows(books))
    await _save_things(connection, books.shard, "transfers", "transfer_key", "reversed", _transfer_rows(books))
    await _save_things(connection, books.shard, "payouts", "payout_key", "failed", _payout_rows(books))
    await _save_things(connection, books.shard, "disputes", "dispute_key", "held", _dispute_rows(books))


async def _save_payments(connection: Connection, books: Books) -> None:
    touched = [(key, payment) for key, payments in books.payments.touched.items() for payment in payments]
    fresh = [_payment_row(key, payment) for key, payment in touched if not payment.loaded]
    known = [_payment_row(key, payment) for key, payment in touched if payment.loaded]
    # A payment that nothing in the batch follows was not loaded: what it has is added to.
    await _upsert_payments(
        connection, books.shard, fresh, "bigint", "p.captured + excluded.captured, p.refunded + excluded.refunded"
    )
    await _upsert_payments(connection, books.shard, known, "numeric", "excluded.captured, excluded.refunded")


async def _upsert_payments(
    connection: Connection, shard: int, rows: Sequence[tuple[Any, ...]], number: str, sums: str
) -> None:
    if rows:
        await connection.execute(
            f"""
            INSERT INTO payments AS p (shard, payment_key, currency, customer_id, captured, refunded, tenant_id,
                provider, payment_id, cash_account_id)
            SELECT $1, n.*
            FROM unnest($2::uuid[], $3::text[], $4::text[], $5::{number}[], $6::{number}[], $7::text[], $8::text[],
                $9::text[], $10::uuid[]) AS n
            ON CONFLICT (shard, payment_key, currency, customer_id) DO UPDATE
            SET (captured, refunded) = ROW ({sums})
            """,
            shard,
            *zip(*rows, strict=True),
        )


def _payment_row(key: Key, payment: Payment) -> tuple[Any, ...]:
    return (
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


Columns = dict[str, str]
"""Column names and the types of their arrays, in the order of the rows."""

_REFUND: Columns = {
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
}
_TRANSFER: Columns = {
    "transfer_key": "uuid",
    "tenant_id": "text",
    "provider": "text",
    "transfer_id": "text",
    "currency": "text",
    "customer_account_id": "uuid",
    "merchant_account_id": "uuid",
    "amount": "bigint",
    "reversed": "bigint",
}
_PAYOUT: Columns = {
    "payout_key": "uuid",
    "tenant_id": "text",
    "provider": "text",
    "payout_id": "text",
    "currency": "text",
    "merchant_account_id": "uuid",
    "cash_account_id": "uuid",
    "amount": "bigint",
    "failed": "boolean",
}
_DISPUTE: Columns = {
    "dispute_key": "uuid",
    "tenant_id": "text",
    "provider": "text",
    "dispute_id": "text",
    "payment_id": "text",
    "currency": "text",
    "customer_id": "text",
    "cash_account_id": "uuid",
    "held": "bigint",
}
_THINGS = {"refunds": _REFUND, "transfers": _TRANSFER, "payouts": _PAYOUT, "disputes": _DISPUTE}


async def _save_things(
    connection: Connection, shard: int, table: str, key: str, moves: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert what is new; of what is known only `moves` ever changes."""
    if not rows:
        return
    columns = _THINGS[table]
    arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(columns.values(), 2))
    await connection.execute(
        f"""
        INSERT INTO {table} (shard, {", ".join(columns)})
        SELECT $1, n.*
        FROM unnest({arrays}) AS n
        ON CONFLICT (shard, {key}) DO UPDATE
        SET {moves} = excluded.{moves}
        """,
        shard,
        *zip(*rows, strict=True),
    )


def _refund_rows(books: Books) -> list[tuple[Any, ...]]:
    return [
        (
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


# --- parking, tenants, periods --------------------------------------------------------------------------------------


async def save_waiting(
    connection: Connection, books: Books, decided: Decided, expires_at: datetime, arrived: set[Key]
) -> None:
    """Write who waits now, take out whose waiting is over, and mark whose turn comes in a later transaction."""
    over = {handled.resumes for handled in decided.handled if handled.resumes is not None}
    parked = [
        (books.shard, handled.seq, pgproto.UUID(handled.outcome.waits_for), expires_at, False)
        for handled in decided.handled
        if isinstance(handled.outcome, Parked) and handled.seq not in over
    ]
    await _copy(connection, "parked", _PARKED, parked)
    if over:
        await connection.execute(
            "DELETE FROM parked WHERE shard = $1 AND seq = ANY($2::bigint[])", books.shard, list(over)
        )
    if arrived:
        await connection.execute(
            "UPDATE parked SET arrived = true WHERE shard = $1 AND waits_for = ANY($2::uuid[]) AND NOT arrived",
            books.shard,
            [pgproto.UUID(key) for key in arrived],
        )


async def save_tenants(connection: Connection, books: Books) -> None:
    """Write new tenants and closed periods. Raises: TenantMovedError."""
    if books.new_tenants:
        names = sorted(books.new_tenants)
        await connection.execute(
            "INSERT INTO tenants (tenant_id, shard) SELECT n, $2 FROM unnest($1::text[]) n ON CONFLICT DO NOTHING",
            names,
            books.shard,
        )
        elsewhere = await connection.fetch(
            "SELECT tenant_id FROM tenants WHERE tenant_id = ANY($1::text[]) AND shard <> $2", names, books.shard
        )
        if elsewhere:
            raise TenantMovedError(", ".join(row["tenant_id"] for row in elsewhere))
    if books.periods_closed:
        closed = [(tenant_id, books.closed_through[tenant_id]) for tenant_id in sorted(books.periods_closed)]
        await connection.execute(
            """
            INSERT INTO periods (shard, tenant_id, closed_through)
            SELECT $1, n.*
            FROM unnest($2::text[], $3::date[]) AS n
            ON CONFLICT (shard, tenant_id) DO UPDATE
            SET closed_through = excluded.closed_through
            """,
            books.shard,
            *zip(*closed, strict=True),
        )


# --- in once, out once ----------------------------------------------------------------------------------------------


async def save_dead_letters(connection: Connection, books: Books, letters: Sequence[tuple[int, DeadLetter]]) -> None:
    """Write records that were no events, with the seqs at which they go out."""
    rows = []
    for seq, letter in letters:
        record = letter.record
        headers = orjson.dumps([[name, None if text is None else text.hex()] for name, text in record.headers])
        rows.append(
            (
                books.shard,
                seq,
                record.topic,
                record.topic_id,
                record.partition,
                record.offset,
                record.timestamp_ms,
                letter.code,
                letter.message,
                record.key,
                record.value,
                headers,
                books.recorded_at,
            )
        )
    await _copy(connection, "dead_letters", _DEAD_LETTERS, rows)


async def save_outbox(connection: Connection, books: Books, writer: OutputWriter, *, first: int, body: bytes) -> None:
    """Write what goes out, and advance the shard."""
    await connection.execute(
        """
        INSERT INTO outbox (shard, seq_last, seq_first, epoch, recorded_at, head_hash, body)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        books.shard,
        writer.next_seq - 1,
        first,
        books.epoch,
        books.recorded_at,
        writer.head,
        body,
    )
    await connection.execute(
        "UPDATE shards SET next_seq = $2, head_hash = $3, last_recorded_at = $4 WHERE shard = $1",
        books.shard,
        writer.next_seq,
        writer.head,
        books.recorded_at,
    )


async def swap_offset(connection: Connection, swap: OffsetSwap) -> None:
    """Move a read position from where this reader left it; a zombie's batch ends here. Raises: OffsetMovedError."""
    if swap.expected is None:
        moved = await connection.fetchval(
            """
            INSERT INTO input_offsets (topic, topic_id, partition, next_offset)
            VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING
            RETURNING next_offset
            """,
            swap.topic,
            swap.topic_id,
            swap.partition,
            swap.next_offset,
        )
    else:
        moved = await connection.fetchval(
            """
            UPDATE input_offsets
            SET next_offset = $5, updated_at = now()
            WHERE topic = $1 AND topic_id = $2 AND partition = $3 AND next_offset = $4
            RETURNING next_offset
            """,
            swap.topic,
            swap.topic_id,
            swap.partition,
            swap.expected,
            swap.next_offset,
        )
    if moved is None:
        raise OffsetMovedError(f"{swap.topic}[{swap.partition}] isn't at {swap.expected} any more")


async def _copy(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        await connection.copy_records_to_table(table, records=rows, columns=columns)
