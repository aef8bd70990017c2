"""One hash for all that a ledger knows."""

from __future__ import annotations

import asyncpg
import pytest

from infra.digest import table_digests, whole_digest
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.fixtures.desk import Desk, payment, post, refund


async def digest(settings: Settings) -> dict[str, str]:
    async with reading(settings) as connection:
        tables = [each async for each in table_digests(connection)]
    return {each["table"]: each["digest"] for each in tables} | {"": whole_digest(tables)}


async def test_where_rows_lie_does_not_change_the_digest(lone_desk: Desk, ledger_settings: Settings) -> None:
    await lone_desk.apply(refund("r1", 10, payment_id="p1"), payment("p1"), post(("x", 5), ("x", -5)))
    before = await digest(ledger_settings)
    await lone_desk.pool.execute("UPDATE balances SET held = held")
    await lone_desk.pool.execute("UPDATE relayed SET seq = 1")
    assert await digest(ledger_settings) == before


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("events", "UPDATE events SET data = replace(data, 'c1', 'c2')"),
        ("postings", "UPDATE postings SET posted_after = posted_after + 1 WHERE leg = 0"),
        ("shards", "UPDATE shards SET head_hash = sha256('x') WHERE next_seq > 1"),
        ("idempotency_keys", "DELETE FROM idempotency_keys"),
    ],
)
async def test_any_change_of_a_row_changes_the_digest_of_its_table(
    lone_desk: Desk, ledger_settings: Settings, table: str, change: str
) -> None:
    await lone_desk.apply(payment("p1"))
    before = await digest(ledger_settings)
    connection = await asyncpg.connect(ledger_settings.asyncpg_dsn)
    try:
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await connection.execute(change)
    finally:
        await connection.close()
    after = await digest(ledger_settings)
    assert {name for name in before if before[name] != after[name]} == {table, ""}
