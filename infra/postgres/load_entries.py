"""Load entries that are named, with their postings."""

from __future__ import annotations

import asyncpg

from domain.books import Books
from domain.events import Entry, Posting
from domain.ids import EntryId, place_of
from domain.needs import Needs
from infra.postgres.load_accounts import load_accounts
from infra.postgres.writes import Connection


async def load_entries(connection: Connection, books: Books, needs: Needs) -> None:
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
    await load_accounts(connection, books, needs)
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
