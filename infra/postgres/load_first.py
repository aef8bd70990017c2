"""The first look of every batch: where its shard stands, who has its keys, what is closed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from asyncpg.pgproto import pgproto

from domain.books import Books, Claim
from domain.keys import Key
from domain.needs import Needs
from infra.postgres.load_cards import AUTHORIZATION_COLUMNS
from infra.postgres.load_credit import CREDIT, credit_of
from infra.postgres.writes import Connection
from infra.resolvers.resolving import CreditData


@dataclass(slots=True)
class ShardState:
    """One shard's row: where it stands."""

    epoch: int
    next_seq: int
    head: bytes
    last_recorded_at: datetime | None


_FIRST = f"""
SELECT epoch, next_seq, head_hash, nullif(last_recorded_at, '-infinity'),
    ARRAY(
        SELECT claimed
        FROM (SELECT key, seq, fingerprint FROM idempotency_keys WHERE shard = $1 AND key = ANY($2::uuid[])) AS claimed
    ),
    ARRAY(
        SELECT closed
        FROM (SELECT tenant_id, closed_through FROM periods WHERE shard = $1 AND tenant_id = ANY($3::text[])) AS closed
    ),
    EXISTS (SELECT FROM parked WHERE shard = $1 AND waits_for = ANY($4::uuid[])),
    ARRAY(
        SELECT found
        FROM (
            SELECT {AUTHORIZATION_COLUMNS} FROM authorizations WHERE shard = $1 AND authorization_key = ANY($5::uuid[])
        ) AS found
    ),
    ARRAY(
        SELECT credit
        FROM ({CREDIT.format(tenants="$6", cards="$7")}) AS credit
    )
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
    authorizations: Sequence[Sequence[Any]]
    """Rows of those that the batch names: each is asked for once, and most are not there yet."""
    authorizations_asked: frozenset[Key]
    credit: CreditData
    """What the default resolvers go by, of the cards that were asked for."""


async def look_first(
    connection: Connection, shard: int, *, keys: Iterable[Key], needs: Needs, cards: Collection[tuple[str, str]] = ()
) -> FirstLook:
    """Read what every batch needs.

    `cards`: tenant and card of those whose credit is wanted.
    """
    asked = frozenset(needs.authorizations)
    row = await connection.fetchrow(
        _FIRST, shard, _uuids(keys), list(needs.tenants), _uuids(needs.arrivals), _uuids(asked), *_columns(cards)
    )
    if row is None:
        raise LookupError(f"shard {shard} is not in the database")
    state, (claims, closed_through, waited_for, authorizations, credit) = ShardState(*row[:4]), row[4:]
    return FirstLook(state, claims, closed_through, waited_for, authorizations, asked, credit_of(credit))


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


def _columns(cards: Collection[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [tenant_id for tenant_id, _ in cards], [card_id for _, card_id in cards]


def _uuids(keys: Iterable[Key]) -> list[pgproto.UUID]:
    return [pgproto.UUID(key) for key in keys]
