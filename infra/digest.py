"""One hash of all that a ledger knows: two databases with the same history have the same, however it lies on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import TypedDict

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

OUT: dict[str, frozenset[str]] = {
    # Whose database it is, not what it says.
    "alembic_version": frozenset(),
    "ledger": frozenset(),
    "topics": frozenset(),
    # How far was read and relayed, by whom and when.
    "input_offsets": frozenset(),
    "relayed": frozenset(),
    # Dropped after a while. What was said enters by the chain's head, which stands in `shards`.
    "outbox": frozenset(),
    # Until when one waits is a setting's; whose turn has come follows from what is there.
    "parked": frozenset({"expires_at", "arrived"}),
}
"""Tables that are left out, or of one that is in, the columns."""

_COLUMNS = """
SELECT c.relname, a.attname
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname, a.attname
"""


class TableDigest(TypedDict):
    """One table's part."""

    table: str
    rows: int
    digest: str


async def table_digests(connection: AsyncConnection) -> AsyncIterator[TableDigest]:
    """The digest of each table that is in, by name.

    The SHA-256 of the rows are added up, so neither their order nor memory matters: Postgres goes over each table once.
    """
    await connection.execute(text("SET LOCAL enable_seqscan = on"))
    for table, columns in (await compared_columns(connection)).items():
        row = ", ".join(f'"{column}"' for column in columns)
        found = await connection.execute(
            text(
                "SELECT count(*),"
                " coalesce(sum(substr(told, 1, 8)::bigint), 0)::text,"
                " coalesce(sum(substr(told, 9, 8)::bigint), 0)::text"
                # OFFSET 0, or each row would be hashed once for each of the sums.
                f' FROM (SELECT sha256(record_send(ROW({row}))) AS told FROM "{table}" OFFSET 0) AS rows'
            )
        )
        rows, *sums = found.one()
        digest = blake2b(repr((table, columns, rows, sums)).encode(), digest_size=16).hexdigest()
        yield {"table": table, "rows": rows, "digest": digest}


async def compared_columns(connection: AsyncConnection) -> dict[str, list[str]]:
    """The columns of each table that are in."""
    tables: dict[str, list[str]] = {}
    for table, column in await connection.execute(text(_COLUMNS)):
        out = OUT.get(table)
        if out is None or (out and column not in out):
            tables.setdefault(table, []).append(column)
    return tables


def whole_digest(tables: Sequence[TableDigest]) -> str:
    """The one hash."""
    told = "\n".join(f"{each['table']} {each['rows']} {each['digest']}" for each in tables)
    return blake2b(told.encode(), digest_size=32).hexdigest()
