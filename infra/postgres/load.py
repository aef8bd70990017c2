"""Load: what a batch must see, in as many queries whatever its size.

What is read here is still true when it is saved: either the shard's row is locked first and held to commit, or it is
locked when it is saved, and nothing is where it has moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.books import Books
from domain.needs import Needs
from infra.postgres.load_accounts import load_accounts
from infra.postgres.load_cards import load_cards
from infra.postgres.load_entries import load_entries
from infra.postgres.load_first import FirstLook, ShardState, keep_claims, load_claims, look_first
from infra.postgres.load_flows import count_waiting, load_flows
from infra.postgres.load_parked import (
    PARKED_MAX,
    ReadCommand,
    load_arrived,
    load_overdue,
    load_parked,
    load_waiting,
    name_needs,
)
from infra.postgres.writes import Connection


async def load_books(
    connection: Connection, books: Books, needs: Needs, read_command: ReadCommand, look: FirstLook | None
) -> None:
    """Load everything that the commands name, and everything that those parked for them name.

    With a first look at the same needs, what it saw isn't asked for again.
    """
    if look is None or look.waited_for:
        await load_waiting(connection, books, needs, read_command)
    await load_flows(connection, books, needs)
    if look is None:
        await load_cards(connection, books, needs)
    else:
        await load_cards(connection, books, needs, authorizations=look.authorizations, asked=look.authorizations_asked)
    await load_entries(connection, books, needs)
    await load_accounts(connection, books, needs)
    if look is None:
        await _load_periods(connection, books, needs)
    else:
        books.closed_through = dict(look.closed_through)
    await count_waiting(connection, books, needs)


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
    "load_parked",
    "look_first",
    "name_needs",
]
