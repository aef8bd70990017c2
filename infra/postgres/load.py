"""Load: what a batch must see, in as many queries whatever its size.

The shard's row is locked first and held to commit, so that what is read here is still true when it is saved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from asyncpg.pgproto import pgproto

from domain.accounts import Account, AccountStatus, AccountType, Balance, customer_balance
from domain.books import Books, Claim
from domain.decide import RESUMED_MAX
from domain.events import Entry, Event, Posting
from domain.flows import Dispute, Payment, Payout, Refund, Transfer
from domain.ids import EntryId, place_of
from domain.keys import Key
from domain.needs import Needs
from infra.postgres.load_cards import load_cards
from infra.postgres.writes import Connection
from infra.records import Origin

ReadCommand = Callable[[str, bytes], Any]
"""From an event's type and the JSON of its data, as journaled, to its command."""

PARKED_MAX = RESUMED_MAX


@dataclass(slots=True)
class ShardState:
    """One shard's row: where it stands."""

    epoch: int
    next_seq: int
    head: bytes
    last_recorded_at: datetime | None


_FIRST = """
SELECT epoch, next_seq, head_hash, nullif(last_recorded_at, '-infinity'),
    ARRAY(
        SELECT claimed
        FROM (SELECT key, seq, fingerprint FROM idempotency_keys WHERE shard = $1 AND key = ANY($2::uuid[])) AS claimed
    ),
    ARRAY(
        SELECT closed
        FROM (SELECT tenant_id, closed_through FROM periods WHERE shard = $1 AND tenant_id = ANY($3::text[])) AS closed
    ),
    EXISTS (SELECT FROM parked WHERE shard = $1 AND waits_for = ANY($4::uuid[]))
FROM shards
WHERE shard = $1
"""


@dataclass(slots=True)
class FirstLook:
    """What every batch asks for, in one statement: where its shard stands, who has its keys, what is closed."""

    state: ShardState
    claims: Sequence[tuple[UUID, int, int]]
    closed_through: Sequence[tuple[str, date]]
    waited_for: bool
    """Whether anything is parked for what the batch may make."""


async def look_first(
    connection: Connection, shard: int, *, keys: Iterable[Key], tenants: Iterable[str], arrivals: Iterable[Key]
) -> FirstLook:
    """Read what every batch needs. The shard must be locked already: only then nothing changes any more."""
    row = await connection.fetchrow(_FIRST, shard, _uuids(keys), list(tenants), _uuids(arrivals))
    if row is None:
        raise LookupError(f"shard {shard} is not in the database")
    return FirstLook(ShardState(*row[:4]), *row[4:])


async def load_claims(connection: Connection, books: Books, keys: Iterable[Key]) -> None:
    """Load which of these keys are taken."""
    rows = await connection.fetch(
        """
        SELECT key, seq, fingerprint
        FROM idempotency_keys
        WHERE shard = $1 AND key = ANY($2::uuid[])
        """,
        books.shard,
        _uuids(keys),
    )
    keep_claims(books, rows)


def keep_claims(books: Books, rows: Iterable[Any]) -> None:
    """Let the books know who has a key: rows of key, seq, fingerprint."""
    for key, seq, fingerprint in rows:
        books.claims[Key(key.bytes)] = Claim(seq, fingerprint)


def _uuids(keys: Iterable[Key]) -> list[pgproto.UUID]:
    return [pgproto.UUID(key) for key in keys]


async def load_books(
    connection: Connection, books: Books, needs: Needs, read_command: ReadCommand, look: FirstLook | None
) -> None:
    """Load everything that the commands name, and everything that those parked for them name.

    With a first look at the same needs, what it saw isn't asked for again.
    """
    if look is None or look.waited_for:
        await _load_parked(connection, books, needs, read_command)
    await _load_flows(connection, books, needs)
    await load_cards(connection, books, needs)
    await _load_entries(connection, books, needs)
    await _load_accounts(connection, books, needs)
    if look is None:
        await _load_periods(connection, books, needs)
    else:
        books.closed_through = dict(look.closed_through)
    await _count_waiting(connection, books, needs)


async def _load_parked(connection: Connection, books: Books, needs: Needs, read_command: ReadCommand) -> None:
    """Load who waits for what the batch may make, and who waits for what those may make, and so on."""
    asked: set[Key] = set()
    left = PARKED_MAX
    while (keys := needs.arrivals - asked) and left > 0:
        asked |= keys
        rows = await connection.fetch(
            f"""
            SELECT {EVENT_COLUMNS}, p.waits_for
            FROM unnest($2::uuid[]) AS arriving (waits_for)
            CROSS JOIN LATERAL (
                SELECT * FROM parked WHERE shard = $1 AND waits_for = arriving.waits_for OFFSET 0
            ) AS p
            CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
            ORDER BY p.seq
            LIMIT $3
            """,
            books.shard,
            [pgproto.UUID(key) for key in keys],
            left,
        )
        left -= len(rows)
        for row in rows:
            event = parked_event(row, read_command)
            waits_for = Key(row["waits_for"].bytes)
            books.waiting.setdefault(waits_for, deque()).append(event)
            name_needs(event, needs)
    books.waiting_whole = left > 0


EVENT_COLUMNS = (
    "e.seq, e.tenant_id, e.type, e.source, e.event_id, e.idempotency_key, e.traceparent, e.occurred_at,"
    " e.fingerprint, e.code, e.data"
)


def parked_event(row: asyncpg.Record, read_command: ReadCommand) -> Event:
    """Rebuild an event from the row of its parking."""
    data = row["data"].encode()
    return Event(
        type=row["type"],
        tenant_id=row["tenant_id"],
        source=row["source"],
        event_id=row["event_id"],
        occurred_at=row["occurred_at"],
        command=read_command(row["type"], data),
        fingerprint=row["fingerprint"],
        idempotency_key=row["idempotency_key"],
        traceparent=row["traceparent"],
        parked_seq=row["seq"],
        carried=Origin(data),
    )


def name_needs(event: Event, needs: Needs) -> None:
    """Add what one event needs to a batch's needs."""
    needs.tenants.add(event.tenant_id)
    event.command.needs(event.tenant_id, needs)
    if event.arrives is not None:
        needs.arrivals.add(event.arrives)


# --- what stays open after money events -----------------------------------------------------------------------------


async def _load_flows(connection: Connection, books: Books, needs: Needs) -> None:
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


async def _count_waiting(connection: Connection, books: Books, needs: Needs) -> None:
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


# --- accounts -------------------------------------------------------------------------------------------------------

_ACCOUNT_COLUMNS = """
    a.account_id, a.tenant_id, a.name, a.type, a.currency, a.parent_id, a.floors, a.ceilings, a.status,
    a.description, a.metadata,
    b.currency AS balance_currency, b.posted, b.pending, b.held, b.version, b.updated_at
"""

# LATERAL with OFFSET 0 fixes the order of the loops: on a table never analyzed the planner may otherwise go through all
# accounts of a shard and compare each with every name.
_THEIR_BALANCES = """
    LEFT JOIN LATERAL (
        SELECT * FROM balances WHERE shard = $1 AND account_id = a.account_id OFFSET 0
    ) AS b ON true
"""

_ACCOUNTS_BY_NAME = f"""
    SELECT {_ACCOUNT_COLUMNS}
    FROM unnest($2::text[], $3::text[]) AS named (tenant_id, name)
    CROSS JOIN LATERAL (
        SELECT * FROM accounts WHERE shard = $1 AND tenant_id = named.tenant_id AND name = named.name OFFSET 0
    ) AS a
    {_THEIR_BALANCES}
"""

_ACCOUNTS_BY_ID = f"""
    SELECT {_ACCOUNT_COLUMNS}
    FROM unnest($2::uuid[]) AS named (account_id)
    CROSS JOIN LATERAL (
        SELECT * FROM accounts WHERE shard = $1 AND account_id = named.account_id OFFSET 0
    ) AS a
    {_THEIR_BALANCES}
"""

_ANCESTORS = f"""
    WITH RECURSIVE above AS (
        SELECT a.account_id, a.parent_id
        FROM unnest($2::text[], $3::text[]) AS named (tenant_id, name)
        CROSS JOIN LATERAL (
            SELECT * FROM accounts WHERE shard = $1 AND tenant_id = named.tenant_id AND name = named.name OFFSET 0
        ) AS a
        UNION
        SELECT p.account_id, p.parent_id
        FROM above
        CROSS JOIN LATERAL (
            SELECT * FROM accounts WHERE shard = $1 AND account_id = above.parent_id OFFSET 0
        ) AS p
    )
    SELECT {_ACCOUNT_COLUMNS}
    FROM above
    CROSS JOIN LATERAL (
        SELECT * FROM accounts WHERE shard = $1 AND account_id = above.account_id OFFSET 0
    ) AS a
    {_THEIR_BALANCES}
"""


async def _load_accounts(connection: Connection, books: Books, needs: Needs) -> None:
    """Load the accounts that aren't in memory yet. One that is must not be read over: it may have changed since."""
    names = [name for name in needs.accounts if name not in books.accounts]
    if names:
        _keep_accounts(books, await connection.fetch(_ACCOUNTS_BY_NAME, books.shard, *_columns(names)))
    if needs.ancestors_of:
        rows = await connection.fetch(_ANCESTORS, books.shard, *_columns(list(needs.ancestors_of)))
        _keep_accounts(books, rows)
    ids = [account_id for account_id in needs.account_ids if account_id not in books.accounts_by_id]
    if ids:
        _keep_accounts(books, await connection.fetch(_ACCOUNTS_BY_ID, books.shard, ids))


def _columns(names: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [tenant_id for tenant_id, _ in names], [name for _, name in names]


def _keep_accounts(books: Books, rows: Iterable[asyncpg.Record]) -> None:
    fresh: dict[UUID, Account] = {}
    for row in rows:
        account_id = row["account_id"]
        if account_id in books.accounts_by_id and account_id not in fresh:
            continue
        account = fresh.get(account_id)
        if account is None:
            account = fresh[account_id] = _account(row)
            books.keep_account(account)
        if row["balance_currency"] is not None:
            account.balances[row["balance_currency"]] = Balance(
                row["posted"], row["pending"], row["held"], row["version"], row["updated_at"]
            )


def _account(row: asyncpg.Record) -> Account:
    metadata = row["metadata"]
    return Account(
        account_id=row["account_id"],
        tenant_id=row["tenant_id"],
        name=row["name"],
        type=AccountType(row["type"]),
        currency=row["currency"],
        parent_id=row["parent_id"],
        floors=orjson.loads(row["floors"]),
        ceilings=orjson.loads(row["ceilings"]),
        status=AccountStatus(row["status"]),
        description=row["description"],
        metadata=None if metadata is None else metadata.encode(),
    )


# --- the rest -------------------------------------------------------------------------------------------------------


async def _load_entries(connection: Connection, books: Books, needs: Needs) -> None:
    """Load the entries that are named; an id tells where its entry stands."""
    seqs = [seq for epoch, shard, seq in map(place_of, needs.entries) if shard == books.shard]
    if not seqs:
        return
    rows = await connection.fetch(
        """
        SELECT e.seq, e.entry_id, e.tenant_id, e.kind, e.effective_at, e.occurred_at, e.payment_id, e.refund_id,
            e.transfer_id, e.payout_id, e.dispute_id, p.account_id, p.currency, p.amount, p.posted_after, p.version,
            a.name
        FROM entries e
        CROSS JOIN LATERAL (SELECT * FROM postings WHERE shard = $1 AND seq = e.seq OFFSET 0) AS p
        CROSS JOIN LATERAL (SELECT name FROM accounts WHERE shard = $1 AND account_id = p.account_id OFFSET 0) AS a
        WHERE e.shard = $1 AND e.seq = ANY($2::bigint[])
        ORDER BY e.seq, p.leg
        """,
        books.shard,
        seqs,
    )
    needs.accounts |= {(row["tenant_id"], row["name"]) for row in rows}
    await _load_accounts(connection, books, needs)
    for row in rows:
        entry_id = EntryId(row["entry_id"])
        if entry_id not in books.entries:
            books.entries[entry_id] = (row["tenant_id"], _entry(row))
        books.entries[entry_id][1].postings.append(
            Posting(
                books.accounts_by_id[row["account_id"]],
                row["currency"],
                row["amount"],
                row["posted_after"],
                row["version"],
            )
        )


def _entry(row: asyncpg.Record) -> Entry:
    names = ("payment_id", "refund_id", "transfer_id", "payout_id", "dispute_id")
    return Entry(
        entry_id=EntryId(row["entry_id"]),
        seq=row["seq"],
        kind=row["kind"],
        postings=[],
        effective_at=row["effective_at"],
        occurred_at=row["occurred_at"],
        references={name: row[name] for name in names if row[name] is not None},
    )


async def _load_periods(connection: Connection, books: Books, needs: Needs) -> None:
    rows = await connection.fetch(
        "SELECT tenant_id, closed_through FROM periods WHERE shard = $1 AND tenant_id = ANY($2::text[])",
        books.shard,
        list(needs.tenants),
    )
    books.closed_through = dict(rows)  # type: ignore[arg-type]


async def load_conflicting(connection: Connection, shard: int, seqs: Sequence[int]) -> dict[int, tuple[str, bytes]]:
    """The type and data of the events at these seqs, to say in what a conflicting one differs."""
    rows = await connection.fetch(
        "SELECT seq, type, data FROM events WHERE shard = $1 AND seq = ANY($2::bigint[])", shard, list(seqs)
    )
    return {row["seq"]: (row["type"], row["data"].encode()) for row in rows}


async def load_arrived(
    connection: Connection, shard: int, limit: int, read_command: ReadCommand
) -> list[tuple[Event, str]]:
    """Parked events whose turn has come, in the order of their parking, with the code of their wait."""
    rows = await connection.fetch(
        f"""
        SELECT {EVENT_COLUMNS}
        FROM parked p
        CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
        WHERE p.shard = $1 AND p.arrived
        ORDER BY p.seq
        LIMIT $2
        """,
        shard,
        limit,
    )
    return [(parked_event(row, read_command), row["code"]) for row in rows]


async def load_overdue(
    connection: Connection, shard: int, now: datetime, limit: int, read_command: ReadCommand
) -> list[tuple[Event, str]]:
    """Parked events whose patience is over, in the order of their parking, with the code they are rejected with."""
    rows = await connection.fetch(
        f"""
        SELECT {EVENT_COLUMNS}
        FROM (
            SELECT seq
            FROM parked
            WHERE shard = $1 AND expires_at <= $2 AND NOT arrived
            ORDER BY expires_at, seq
            LIMIT $3
        ) AS p
        CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
        ORDER BY p.seq
        """,
        shard,
        now,
        limit,
    )
    return [(parked_event(row, read_command), row["code"]) for row in rows]


__all__ = [
    "PARKED_MAX",
    "Connection",
    "FirstLook",
    "ReadCommand",
    "ShardState",
    "keep_claims",
    "load_arrived",
    "load_books",
    "load_claims",
    "load_conflicting",
    "load_overdue",
    "look_first",
    "name_needs",
]


async def load_parked(
    connection: Connection, shard: int, seqs: Sequence[int], read_command: ReadCommand
) -> list[tuple[Event, str]]:
    """Those of the events parked at these seqs that still wait, with the code they are rejected with."""
    rows = await connection.fetch(
        f"""
        SELECT {EVENT_COLUMNS}
        FROM (SELECT seq FROM parked WHERE shard = $1 AND seq = ANY($2::bigint[]) AND NOT arrived) AS p
        CROSS JOIN LATERAL (SELECT * FROM events WHERE shard = $1 AND seq = p.seq OFFSET 0) AS e
        ORDER BY p.seq
        """,
        shard,
        list(seqs),
    )
    return [(parked_event(row, read_command), row["code"]) for row in rows]
