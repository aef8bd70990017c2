"""Save the journal: what came in, its entries and postings, and the keys they claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asyncpg.pgproto import pgproto

from domain.books import Books
from domain.decide import Decided
from domain.events import Applied, Entry, Handled, Outcome, Parked, Rejected
from infra.postgres.writes import Target, Writes
from infra.records import Origin
from schemas.fingerprint import FINGERPRINT_VERSION

_EVENTS = Target(
    "events",
    {
        "shard": "smallint",
        "seq": "bigint",
        "outputs": "smallint",
        "outcome": "text",
        "resumes": "bigint",
        "tenant_id": "text",
        "type": "text",
        "source": "text",
        "event_id": "text",
        "idempotency_key": "text",
        "traceparent": "text",
        "occurred_at": "timestamptz",
        "recorded_at": "timestamptz",
        "topic": "text",
        "partition": "integer",
        "offset": "bigint",
        "fingerprint": "bigint",
        "code": "text",
        "message": "text",
        "waits_for": "text",
        "data": "text",
    },
)
_ENTRIES = Target(
    "entries",
    {
        "shard": "smallint",
        "seq": "bigint",
        "entry_id": "uuid",
        "event_seq": "bigint",
        "tenant_id": "text",
        "kind": "text",
        "description": "text",
        "payment_id": "text",
        "refund_id": "text",
        "transfer_id": "text",
        "payout_id": "text",
        "dispute_id": "text",
        "metadata": "text",
        "effective_at": "timestamptz",
        "occurred_at": "timestamptz",
        "recorded_at": "timestamptz",
        "reverses": "uuid",
        "pending": "boolean",
    },
)
# Most have none, and an array costs more to hand over than all else of an entry.
_ENTRIES_WITH_BREACHES = replace(_ENTRIES, columns=_ENTRIES.columns | {"breaches": "text[]"})
_POSTINGS = Target(
    "postings",
    {
        "shard": "smallint",
        "seq": "bigint",
        "leg": "smallint",
        "account_id": "uuid",
        "currency": "text",
        "amount": "bigint",
        "posted_after": "bigint",
        "version": "bigint",
        "effective_at": "timestamptz",
    },
)
_KEYS = Target(
    "idempotency_keys",
    {
        "shard": "smallint",
        "key": "uuid",
        "seq": "bigint",
        "fingerprint": "bigint",
        "fingerprint_version": "smallint",
    },
)


_GIVEN_BACK = "DELETE FROM idempotency_keys WHERE shard = {0} AND key = ANY({1}::uuid[]) {still}"


async def save_journal(writes: Writes, books: Books, decided: Decided) -> None:
    """Write what came in, the entries and their postings."""
    event_rows, entry_rows, breached_rows, posting_rows = [], [], [], []
    for handled in decided.handled:
        event_rows.append(_event_row(books, handled))
        outcome = handled.outcome
        if isinstance(outcome, Applied) and outcome.entry is not None:
            entry = outcome.entry
            row = _entry_row(books, handled, entry)
            if entry.breaches:
                breached_rows.append((*row, entry.breaches))
            else:
                entry_rows.append(row)
            posting_rows += _posting_rows(books.shard, entry)
    writes.insert(_EVENTS, event_rows)
    writes.insert(_ENTRIES, entry_rows)
    writes.insert(_ENTRIES_WITH_BREACHES, breached_rows)
    writes.insert(_POSTINGS, posting_rows)


async def save_claims(writes: Writes, books: Books) -> None:
    """Write the keys that were claimed, and take out those that were given back."""
    if books.released:
        writes.change(_GIVEN_BACK, (books.shard, [pgproto.UUID(key) for key in books.released]))
        if not books.new_claims.keys().isdisjoint(books.released):
            # Claimed again since, and in one statement the row would still be there.
            await writes.flush()
    # In the order of the index, so that neighbours fall on one page.
    claims = sorted(books.new_claims.items())
    writes.insert(
        _KEYS,
        [(books.shard, pgproto.UUID(key), claim.seq, claim.fingerprint, FINGERPRINT_VERSION) for key, claim in claims],
    )


def told_of(outcome: Outcome) -> tuple[str, int, str | None, str | None, str | None]:
    """What an event's row says of its outcome: its kind, how many outputs, code, message, what it waits for."""
    kind, outputs, code, message, waits_for = "applied", 1, None, None, None
    match outcome:
        case Applied():
            outputs = outcome.outputs
        case Rejected():
            kind, code, message = "rejected", str(outcome.code), outcome.message
        case Parked():
            kind, code, waits_for = "parked", str(outcome.code), outcome.waits_for_text
    return kind, outputs, code, message, waits_for


def _event_row(books: Books, handled: Handled) -> tuple[Any, ...]:
    event, outcome = handled.event, handled.outcome
    origin: Origin = event.carried
    record = origin.record
    kind, outputs, code, message, waits_for = told_of(outcome)
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
    )


def _posting_rows(shard: int, entry: Entry) -> list[tuple[Any, ...]]:
    return [
        (shard, entry.seq, leg, account.account_id, currency, amount, posted_after, version, entry.effective_at)
        for leg, (account, currency, amount, posted_after, version) in enumerate(entry.postings)
    ]
